"""Temporary estimator of periods."""
from __future__ import annotations
from typing import NamedTuple
import numpy as np

class Period(NamedTuple):
    length: int
    strength: float

def find_periods(values, most=3):
    x = np.asarray(values, dtype=np.float64)
    seen = np.isfinite(x)
    first = seen.argmax() if seen.any() else 0
    x, seen = x[first:], seen[first:]
    n = len(x)
    if n < 8 or seen.sum() < 8:
        return []
    t = np.arange(n) - (n - 1) / 2
    w = seen.astype(float)
    x = np.where(seen, x, 0.0)
    m = x.sum() / w.sum(); tm = (t * w).sum() / w.sum()
    tc = (t - tm) * w
    b = (tc * (x - m)).sum() / max((tc * tc).sum(), 1e-12)
    x = np.where(seen, x - m - b * (t - tm), 0.0)
    scale = x.std()
    if not scale > 1e-9 * (abs(m) + 1e-30):
        return []
    x = np.clip(x / scale, -4, 4)
    size = 1 << (2 * n - 1).bit_length()
    fx, fw, fq = np.fft.rfft(x, size), np.fft.rfft(w, size), np.fft.rfft(x * x, size)
    cov = np.fft.irfft(fx.conj() * fx, size)[:n]
    a = np.fft.irfft(fw.conj() * fq, size)[:n]  # sum of later squares
    c = np.fft.irfft(fq.conj() * fw, size)[:n]
    top = n // 2 + 1
    r = (cov / np.sqrt(np.maximum(a * c, 1e-9)))[:top + 1]
    pairs = np.maximum(np.fft.irfft(fw.conj() * fw, size)[:len(r)], 1)
    k = np.arange(1, len(r) - 1)
    peak = (r[k] >= r[k - 1]) & (r[k] > r[k + 1])
    trough = np.minimum.accumulate(r)[k]
    ok = peak & (k >= 2) & (r[k] > np.maximum(0.15, 2.5 / np.sqrt(pairs[k]))) & (r[k] - trough > 0.25)
    k = k[ok]
    if not len(k):
        return []
    best = r[k].max()
    first = k[r[k] >= 0.85 * best][0]
    found = [Period(int(first), float(r[first]))]
    longer = k[(k > 1.5 * first) & (r[k] > r[first] + 0.03)]
    if len(longer) and most > 1:
        top2 = longer[r[longer] >= 0.97 * r[longer].max()][0]
        found.append(Period(int(top2), float(r[top2])))
    return found
