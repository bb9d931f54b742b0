"""Run the commands of pages in a new folder, and write what they print below them.

    python docs/run_commands.py

The pictures of the pages are drawn anew as well; that of the HTML report needs chromium.
"""

# %%
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("command_line", "cycles")]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
# what the folder is called on the page
HOME = "/home/you"
PICTURES = (
    "airline.png",
    "backtest.png",
    "calibration.png",
    "cycles.png",
    "fan.png",
    "panel.png",
    "report.png",
)
SCREENSHOT = (
    "--headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,1960 "
    "--virtual-time-budget=10000 --screenshot=report.png"
)


# %%
def run_page(text: str, folder: Path) -> str:
    """Return the page with the output of every command below it; all run in one folder."""
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples")

    def run_block(block: re.Match[str]) -> str:
        commands = [line for line in block[1].splitlines() if line.startswith("$ ")]
        parts = [f"{command}\n{run(command[2:], folder)}" for command in commands]
        return f"```console\n{''.join(parts)}```"

    return BLOCK.sub(run_block, text)


def run(command: str, folder: Path) -> str:
    """Run a command in a shell, with the programs of this Python first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.replace(str(folder.resolve()), HOME)


# %%
if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for page in PAGES:
            page.write_text(run_page(page.read_text(), folder))
        print(run("python examples/pictures.py", folder), end="")
        if browser := shutil.which("chromium"):
            report = (folder / "report.html").as_uri()
            run(f"{browser} {SCREENSHOT} --user-data-dir=profile {report}", folder)
        for picture in PICTURES:
            if (folder / picture).is_file():
                shutil.copy(folder / picture, ROOT / "docs" / "images" / picture)
