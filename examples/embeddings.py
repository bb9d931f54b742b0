"""Embeddings: nearest series, clusters, and a classifier, on real sets that come with sktime."""

# %% Outlines of leaves of six trees, read off as series of 427 points
import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sktime.datasets import load_gunpoint, load_osuleaf

from moirai_moe_forecaster import MoiraiMoEPipeline

pipeline = MoiraiMoEPipeline.from_pretrained()
x_train, y_train = load_osuleaf(split="train", return_type="numpy3D")
x_test, y_test = load_osuleaf(split="test", return_type="numpy3D")
train = pipeline.embed([series[0] for series in x_train])
test = pipeline.embed([series[0] for series in x_test])
print("pooled (series, width):", train.pooled.shape)
print("tokens of one series (variate, patch, width):", train.tokens[0].shape)

# %% Nearest series
neighbours = NearestNeighbors(n_neighbors=3).fit(train.pooled)
distance, index = neighbours.kneighbors(test.pooled[:1])
print(f"a leaf of class {y_test[0]}; the nearest ones are of {', '.join(y_train[index[0]])}")


# %% A linear probe: a linear classifier on top of frozen representations, and on raw values
def accuracy(a: np.ndarray, b: np.ndarray, train_labels: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy on the test split."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return probe.fit(a, train_labels).score(b, labels)


leaves = accuracy(train.pooled, test.pooled, y_train, y_test)
raw = accuracy(x_train[:, 0], x_test[:, 0], y_train, y_test)
print(f"leaves, six classes: {leaves:.2f} of {len(y_test)} right; from raw values {raw:.2f}")

# %% Movements of a hand with and without a gun
x_train, y_train = load_gunpoint(split="train", return_type="numpy3D")
x_test, y_test = load_gunpoint(split="test", return_type="numpy3D")
train = pipeline.embed([series[0] for series in x_train])
test = pipeline.embed([series[0] for series in x_test])
hands = accuracy(train.pooled, test.pooled, y_train, y_test)
raw = accuracy(x_train[:, 0], x_test[:, 0], y_train, y_test)
print(f"hands, two classes: {hands:.2f} of {len(y_test)} right; from raw values {raw:.2f}")

# %% Clusters, without labels: waves, noise, trends and steps
rng = np.random.default_rng(0)
t = np.arange(128)
makers = {
    "wave": lambda: np.sin(t / rng.uniform(2, 6) + rng.uniform(0, 6)) + rng.normal(0, 0.2, 128),
    "noise": lambda: rng.normal(size=128),
    "trend": lambda: rng.uniform(0.01, 0.05) * t + rng.normal(0, 0.3, 128),
    "steps": lambda: np.repeat(rng.normal(size=8), 16) + rng.normal(0, 0.1, 128),
}
labels = np.repeat(list(makers), 20)
pooled = pipeline.embed([makers[label]() for label in labels]).pooled
clusters = KMeans(4, n_init=10, random_state=0).fit_predict(StandardScaler().fit_transform(pooled))
print(f"clusters against kinds, adjusted Rand index: {adjusted_rand_score(labels, clusters):.2f}")
