"""The function ``resume``, which starts a run anew or from the newest checkpoint that is intact."""

from __future__ import annotations

from pathlib import Path

from mocme_jax.parallel.mesh import Mapper
from mocme_jax.training.checkpoints.run_position import Position, check_same_run
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.train_state import StatePlan, TrainState


def resume(saves: Saves, plan: StatePlan, mapper: Mapper, workdir: Path) -> tuple[TrainState, Position]:
    """Return the state to continue from, in the form that programs take, and its position. The folder must be locked.

    Raises:
      UserError: the folder holds another run, or only corrupt checkpoints. Nothing has been changed.
    """

    def same_run(meta: dict) -> None:
        check_same_run(workdir, meta, saves.identity)

    # The steps of resuming:
    # 1. The folder is locked: no other process trains in it. (done by the caller)
    # 2. The newest checkpoint of last/ whose meta has its digest must be of this graph, features and config.
    # 3. Its arrays must match their checksums. A corrupt checkpoint is reported, and the previous one is tried.
    # 4. Its arrays become the state, and its meta the position: step, best result, patience.
    saved = saves.newest("last", plan.shapes, accept=same_run)
    if saved is None:
        # Nothing to resume from, but a checkpoint of another run in best/ must not be deleted.
        saves.newest("best", accept=same_run, needed=False)
        state, position = plan.create(), Position()
    else:
        state, position = mapper.place(saved.arrays, plan.spec), Position(**saved.meta["position"])
    # 5. The best checkpoint must be intact too. If the state was just evaluated as the best, it is saved again;
    #    otherwise the previous one counts as the best.
    best = None
    if position.best_step:
        best = saves.newest("best", plan.shapes.params, up_to=position.number, needed=False)
    # 6. From here on, the folder is changed. Checkpoints after the position are deleted.
    saves.forget_after("last", position.number)
    saves.forget_after("best", -1 if best is None else best.number)
    if position.best_step and (best is None or best.number != position.best_number):
        if saved is not None and position.evaluated and position.best_step == position.step:
            saves.save("best", position, saved.arrays.evaluated)
        else:
            position.take_best(Position(**best.meta["position"]) if best else Position())
            saves.notify(f"the best remaining checkpoint is from epoch {position.best_epoch}; scores may differ")
    # 7. Rows of metrics.jsonl after the last evaluated step are dropped, and written again. (by the caller)
    # 8. A pending evaluation is done; a run that had ended continues with the test score. (by the caller)
    return state, position
