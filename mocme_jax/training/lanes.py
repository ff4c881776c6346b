"""The storage of the seeds of a training, in memory and on disk: one seed as it is, or several as lanes of one program.

Both classes have the same methods, which are all that the training loop uses.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.errors import UserError
from mocme_jax.method.mocme import Params
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.checkpoints.run_position import Position, check_same_run, furthest
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.setup.builders import Training
from mocme_jax.training.train_state import StatePlan, TrainState
from mocme_jax.training.weight_fit import with_fusion


@dataclasses.dataclass
class OneLane:
    """One seed, whose best parameters are on disk in ``best/`` of the folder.

    Attributes:
      training: the training.
      saves: the checkpoints.
      folder: the folder of the run.
    """

    training: Training
    saves: Saves
    folder: Path

    def resume(self) -> tuple[TrainState, list[Position]]:
        """Return the state to continue from, in the form that the program takes, and the position of each seed."""
        state, position = resume(self.saves, self.training.plan, self.training.mapper, self.folder)
        return state, [position]

    def of(self, tree: Any, number: int) -> Any:
        """Return the part of a tree of parameters that belongs to a seed."""
        return tree

    def with_fusion(self, state: TrainState, params: Params, number: int) -> TrainState:
        """Return the state with the fusion parameters that a seed's parameters have, also in its average."""
        if "fusion" not in params.model["params"]:
            return state
        new = self._in_state(state, jax.device_get(params.model["params"]["fusion"]), number)

        def changed(old: Params) -> Params:
            # Placed once for each, because the memory of the state is donated to the next step.
            return with_fusion(old, self.training.mapper.place(new, WHOLE))

        average = None if state.average is None else changed(state.average)
        return state._replace(params=changed(state.params), average=average)

    def _in_state(self, state: TrainState, fusion: Any, number: int) -> Any:
        return fusion

    def improved(self, whole: TrainState, numbers: Sequence[int]) -> bool:
        """Keep the parameters of the seeds that improved; return whether to save the evaluation at once."""
        return True

    def save(self, whole: TrainState, positions: list[Position]) -> None:
        """Save the state and its position."""
        (position,) = positions
        if position.evaluated and position.best_step == position.step:
            self.saves.save("best", position, whole.evaluated)
        self.saves.save("last", position, whole)

    def best(self, position: Position, number: int) -> Params | None:
        """Return the best parameters of a seed, and update its position; None if nothing was evaluated."""
        best = self.saves.newest("best", self.training.plan.shapes.params)
        if best is None:
            return None
        position.take_best(Position(**best.meta["position"]))
        return self.training.mapper.place(best.arrays, self.training.plan.spec.params)


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


class _Arrays(NamedTuple):
    """The arrays of a checkpoint of several seeds.

    Attributes:
      state: the stacked states.
      best: each seed's best parameters so far.
    """

    state: TrainState
    best: Params


class StackedLanes(OneLane):
    """Several seeds, with stacked states. Their best parameters are in memory and are saved with the state."""

    def resume(self) -> tuple[TrainState, list[Position]]:
        """Return the stacked states, and the position of each seed.

        Raises:
          UserError: the folder holds another run, or another number of seeds.
        """
        plan, mapper = self.training.plan, self.training.mapper
        self._keep = jax.jit(_keep_lane, donate_argnums=0)

        def same_run(meta: dict) -> None:
            check_same_run(self.folder, meta, self.saves.identity)
            if len(meta["lanes"] or ()) != len(plan.shapes.key):
                raise UserError(f"{self.folder}: contains a run with another number of seeds; delete it to start again")

        arrays = _Arrays(plan.shapes, plan.shapes.evaluated)
        saved = self.saves.newest("last", arrays, accept=same_run, needed=False)
        if saved is None:
            self.saves.forget_after("last", -1)
            state = plan.create()
            self._best = jax.tree.map(jnp.copy, mapper.whole_tables(state.evaluated, WHOLE))
            return state, [Position() for _ in state.key]
        self._best = saved.arrays.best
        positions = [Position(**lane) for lane in saved.meta["lanes"]]
        return mapper.place(saved.arrays.state, plan.spec), positions

    def of(self, tree: Any, number: int) -> Any:
        """Return a lane of a stacked tree."""
        return jax.tree.map(lambda x: x[number], tree)

    def _in_state(self, state: TrainState, fusion: Any, number: int) -> Any:
        def stacked(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.concatenate([old[:number], new[None], old[number + 1 :]])

        return jax.tree.map(stacked, jax.device_get(state.params.model["params"]["fusion"]), fusion)

    def improved(self, whole: TrainState, numbers: Sequence[int]) -> bool:
        """Copy the lanes that improved. They are saved together with the state."""
        for number in numbers:
            self._best = self._keep(self._best, whole.evaluated, np.int32(number))
        return False

    def save(self, whole: TrainState, positions: list[Position]) -> None:
        """Save the state and the best parameters of all lanes."""
        arrays = _Arrays(whole, self._best)
        self.saves.save("last", furthest(positions), arrays, [dataclasses.asdict(one) for one in positions])

    def best(self, position: Position, number: int) -> Params | None:
        """Return the lane's best parameters; None if it was never evaluated."""
        return self.of(self._best, number) if position.best_step else None


def _keep_lane(best: Params, new: Params, number: jax.Array) -> Params:
    return jax.tree.map(lambda old, fresh: old.at[number].set(fresh[number]), best, new)
