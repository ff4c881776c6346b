"""Multi-modal knowledge graph completion with complementary modality experts (MoCME), in JAX and Flax.

Example::

    graph = mocme_jax.KnowledgeGraph.from_triples(rows, test=0.1)
    model = mocme_jax.fit(graph, width=64, epochs=20)
    model.complete(head="France", relation="borders", k=5)
"""

import importlib
import sys
import types

__version__ = "0.4.0"

# Imported on first use, so that `import mocme_jax` does not import JAX.
_LAZY = {
    "KnowledgeGraph": "data.graph.knowledge_graph",
    "UserError": "errors",
    "ablate": "library",
    "default_config": "config",
    "fit": "library",
    "load": "serving.run_loading",
    "search": "library",
}
__all__ = [*_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(f"mocme_jax.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_LAZY, "__version__"])


class _Package(types.ModuleType):
    """A module type that keeps ``search`` and ``ablate`` functions when the commands of these names are imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _LAZY or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
