"""What repeats in a series: its periods and the shapes of its cycles."""
