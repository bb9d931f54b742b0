"""Numbers as files of text have them: decimal commas, groups of thousands, currencies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from moirai_moe_forecaster.errors import InvalidInputError

# what pandas takes for missing
MISSING = {
    *("", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>"),
    *("n/a", "na", "nan", "null", "none"),
}
_UNITS = r"[€$£¥₹%]|\b(?:EUR|USD|GBP|CHF|JPY|SEK|NOK|DKK|PLN|kr|zł)\b\.?"
_SPACES = "[\\s'\u2019\u00a0\u202f]"
_NUMBER = r"[-+]?(?:\d[\d.,]*|[.,]\d+)(?:[eE][-+]?\d+)?"


def read_values(
    table: pd.DataFrame, columns: list[str], separator: str | None, decimal: str | None
) -> pd.DataFrame:
    """Read columns of text as numbers.

    Parameters
    ----------
    table : DataFrame
        Of text.
    columns : list of str
        Those that hold numbers; one that holds none stays as it is.
    separator : str, optional
        Of the file's fields: where it is a comma, decimals have points.
    decimal : {".", ","}, optional
        By default told from the numbers.

    Returns
    -------
    DataFrame
        Values that are no number stay text.

    Raises
    ------
    InvalidInputError
        If a comma or a point may separate decimals or thousands.
    """
    # as objects: regular expressions of Arrow's text are not those of Python
    given = {name: table[name].astype(object).str.strip() for name in columns}
    missing = {name: texts.str.lower().isin(MISSING) for name, texts in given.items()}
    if decimal is None and separator == ",":
        plain = {
            name: pd.to_numeric(given[name].where(~missing[name]), errors="coerce")
            for name in columns
        }
        done = {n for n in columns if (plain[n].notna() | missing[n]).all()}
    else:
        plain, done = {}, set()
    texts = {name: _cleaned(given[name][~missing[name]]) for name in columns if name not in done}
    marks = {name: _decimals(column) for name, column in texts.items()}
    all_marks = set().union(*marks.values()) if marks else set()
    result = {}
    for name in columns:
        if name in done:
            result[name] = plain[name]
            continue
        column = texts[name]
        mark = decimal or _one(marks[name], all_marks, column, separator, name)
        grouped = "." if mark == "," else ","
        numbers = pd.to_numeric(
            column.str.replace(grouped, "").str.replace(mark, "."), errors="coerce"
        )
        if not len(column) or numbers.notna().any():
            values = given[name].astype(object).where(~missing[name], np.nan)
            known = numbers[numbers.notna()]
            values.loc[known.index] = known.astype(object)
            result[name] = values.astype(np.float64) if len(known) == len(column) else values
        else:
            result[name] = given[name].astype(object).where(~missing[name], None)
    return table.assign(**result)


def _cleaned(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Take away what stands around numbers, and write negative ones with a sign."""
    # most need none of it
    if not texts.str.contains(r"[^-+\d.,eE]|-$", regex=True).any():
        return texts
    bare = texts.str.replace(_UNITS, "", regex=True).str.replace(_SPACES, "", regex=True)
    bare = bare.str.replace("\u2212", "-").str.replace(r"^\((.+)\)$", r"-\1", regex=True)
    bare = bare.str.replace(r"^([^-+]+)-$", r"-\1", regex=True)
    return bare.where(bare.str.fullmatch(_NUMBER), texts)


def _decimals(texts: pd.Series[Any]) -> set[str]:
    """Which of point and comma separate decimals for sure."""
    found = set()
    dots, commas = texts.str.count(r"\."), texts.str.count(",")
    likely = texts.str.fullmatch(_NUMBER)
    both = texts[likely & (dots > 0) & (commas > 0)]
    if len(both):
        comma_last = both.str.rfind(",") > both.str.rfind(".")
        found |= {","} if comma_last.any() else set()
        found |= {"."} if (~comma_last).any() else set()
    for mark, other, own, others in ((",", ".", commas, dots), (".", ",", dots, commas)):
        alone = texts[likely & (own > 0) & (others == 0)]
        if (own[alone.index] > 1).any():
            found.add(other)
        # no group of thousands has other than three digits, or a zero in front
        parts = alone[own[alone.index] == 1].str.split(mark, n=1, regex=False)
        head, tail = parts.str[0].str.lstrip("+-"), parts.str[1]
        if ((tail.str.len() != 3) | (head.str.len() > 3) | head.isin(["", "0"])).any():
            found.add(mark)
    return found


def _one(
    own: set[str], all_marks: set[str], texts: pd.Series[Any], separator: str | None, name: str
) -> str:
    """Which mark separates the decimals of a column."""
    if len(own) == 1:
        return next(iter(own))
    if len(own) > 1:
        raise InvalidInputError(
            f"some numbers of column {name!r} have decimal points and others decimal commas; "
            "write all alike"
        )
    if len(all_marks) == 1:
        return next(iter(all_marks))
    open_to_doubt = texts[texts.str.fullmatch(_NUMBER) & texts.str.contains(r"[.,]", regex=True)]
    if separator == "," or not len(open_to_doubt):
        return "."
    if separator in ("\t", "|") and not open_to_doubt.str.contains(",").any():
        return "."
    raise InvalidInputError(
        f"numbers of column {name!r} such as {open_to_doubt.iloc[0]!r} may have decimals or "
        "thousands behind the mark; say which marks decimals: --decimal , or --decimal ."
    )
