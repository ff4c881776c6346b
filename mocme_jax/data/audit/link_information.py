"""What the two ends of a triple tell of each other by what they carry."""

import numpy as np

from mocme_jax.data.graph.knowledge_graph import Modality

# A sample of so many triples; a few shuffles of it tell what the estimate finds where there is nothing to find.
_TRIPLES = 4096
_SHUFFLES = 5
_WIDTH = 32


def link_information(modality: Modality, triples: np.ndarray) -> float:
    """What a modality tells of a triple: the mutual information in nats between what its head and its tail carry.

    A mean over all training triples, where those whose ends do not both carry it count as 0.

    Rows are projected at random to 32 columns at most and to the unit sphere, and taken as jointly Gaussian:
    log (det C_h det C_t / det C_ht) / 2 with a shrunk covariance C, less the same estimate after the tails have been
    shuffled.

    Args:
      modality: of all entities.
      triples: int32 ``[T, 3]``, those that are trained on.

    Returns:
      At least 0, to three decimals; 0 where fewer triples have both ends than the covariance has columns.
    """
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(triples), min(_TRIPLES, len(triples)), replace=False, shuffle=False)
    sample = np.asarray(triples[np.sort(chosen)])
    heads, tails = sample[:, 0], sample[:, 2]
    both = modality.present[heads] & modality.present[tails]
    width = min(_WIDTH, modality.features.shape[1])
    if both.sum() < 2 * width:
        return 0.0
    rows = [modality.features[ids[both]].astype(np.float64) for ids in (heads, tails)]
    projection, _ = np.linalg.qr(rng.standard_normal((modality.features.shape[1], width)))
    centre = np.concatenate(rows).mean(axis=0)
    first, second = (_on_sphere((ends - centre) @ projection) for ends in rows)
    nothing = np.mean([_gaussian(first, second[rng.permutation(len(second))]) for _ in range(_SHUFFLES)])
    # Rounded, so that all processes of a run compile the same number.
    return round(float(both.mean()) * max(_gaussian(first, second) - float(nothing), 0.0), 3)


def _on_sphere(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + 1e-12)


def _gaussian(first: np.ndarray, second: np.ndarray) -> float:
    """MI of rows ``[n, r]`` under a joint Gaussian, its covariance drawn to its diagonal by 2r / (2r + n).

    The model's ``gaussian`` on the host: this room imports no JAX.
    """
    count, width = first.shape
    covariance = np.cov(np.concatenate([first, second], axis=1).T, bias=True)
    share = 2 * width / (2 * width + count)
    covariance = (1 - share) * covariance + np.diag(share * np.diag(covariance) + 1e-6)

    def log_determinant(block: np.ndarray) -> float:
        return float(np.linalg.slogdet(block)[1])

    own = log_determinant(covariance[:width, :width]) + log_determinant(covariance[width:, width:])
    return (own - log_determinant(covariance)) / 2
