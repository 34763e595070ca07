"""Training with weights, gradients and AdamW's moments divided among the devices (FSDP).

Lightning's strategy, with what the recipes here need of it: gradients are clipped by their norm, weights are
decayed as in any other training, and a checkpoint is the file that one device would have written.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.fabric.strategies.fsdp import _get_full_state_dict_context
from lightning.fabric.strategies.model_parallel import _load_raw_module_state
from lightning.pytorch.core.optimizer import LightningOptimizer, _init_optimizers_and_lr_schedulers
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp._common_utils import clean_tensor_name
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy
from torch.optim import Optimizer

from focal_lab.errors import UserError


class Sharded(FSDPStrategy):
    """FSDP for every backbone of timm that calls its layers `blocks`, as transformers do: each is a unit.

    With mixed precision weights are gathered, and gradients averaged, in float32, as DDP does it; autocast
    alone decides what is computed in 16 bits. Both compute the same.

    Args:
        sharding_strategy: FULL_SHARD divides weights, gradients and moments; SHARD_GRAD_OP keeps the weights
            whole between forward and backward, which saves gathering them again; HYBRID_SHARD divides within
            a machine and repeats on each.
        activation_checkpointing: keep a block's input alone and compute the block again in the backward pass.
        cpu_offload: keep weights in the memory of the processor where no device needs them.
    """

    def __init__(
        self,
        sharding_strategy: Literal["FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD"] = "FULL_SHARD",
        activation_checkpointing: bool = False,
        cpu_offload: bool = False,
    ) -> None:
        super().__init__(
            sharding_strategy=sharding_strategy,
            cpu_offload=cpu_offload,
            state_dict_type="full",
            use_orig_params=True,
        )
        self._checkpoints_activations = activation_checkpointing
        self._configured: tuple[list[Optimizer], list[Any]] | None = None

    @property
    def mixed_precision_config(self) -> None:
        """Nothing is cast for the way between devices."""
        return None

    def _setup_model(self, model: nn.Module) -> nn.Module:
        """Wrap the blocks, then the whole.

        The optimizer is made before: divided weights have one dimension, by which timm would take all of them
        for biases and norms, and decay none.
        """
        module = self.lightning_module
        assert module is not None
        if module.trainer.state.fn == TrainerFn.FITTING:
            self._configured = _init_optimizers_and_lr_schedulers(module)
        blocks = {id(block) for block in find_blocks(model)}
        self.kwargs["auto_wrap_policy"] = partial(
            lambda_auto_wrap_policy, lambda_fn=lambda part: id(part) in blocks
        )
        if self._checkpoints_activations:
            self._activation_checkpointing_kwargs = {"check_fn": lambda part: id(part) in blocks}
        return super()._setup_model(model)

    def setup_optimizers(self, trainer: Any) -> None:
        """Those that were made before the weights were divided; they are the same objects."""
        self._reset_optimizers_and_schedulers()
        assert self._configured is not None
        self.optimizers, self.lr_scheduler_configs = self._configured
        self._configured = None

    def clip_gradients(self, norm: float) -> Tensor:
        """Scale down the gradients of all devices where their common norm is larger; the norm before."""
        assert isinstance(self.model, FullyShardedDataParallel)
        before: Tensor = self.model.clip_grad_norm_(norm)
        return before

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state on the first process, numbered as the optimizer itself would; nothing on others.

        Lightning numbers by the order of the network, another one where there are groups of weights.
        """
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        assert self.model is not None
        with self._whole(rank0_only=True):
            state: dict[str, Any] = FullyShardedDataParallel.optim_state_dict(self.model, optimizer)
        if self.global_rank != 0:
            return state
        numbers = {name: number for number, name in enumerate(self._names(optimizer))}
        groups = [
            group | {"params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]
        ]
        return {
            "state": {numbers[name]: kept for name, kept in state["state"].items()},
            "param_groups": groups,
        }

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Divide a whole checkpoint, of whatever number of devices, among these."""
        path = Path(self.broadcast(checkpoint_path))
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        module = self.lightning_module
        assert self.model is not None
        assert module is not None
        _load_raw_module_state(
            checkpoint.pop("state_dict"),
            module=self.model,
            world_size=self.world_size,
            strict=module.strict_loading,
        )
        if module.trainer.state.fn == TrainerFn.FITTING:
            states = checkpoint.get("optimizer_states", [])
            for optimizer, state in zip(self.optimizers, states, strict=True):
                self._load_optimizer(optimizer, state)
        return checkpoint

    def _load_optimizer(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        if [len(group["params"]) for group in state["param_groups"]] != [
            len(group["params"]) for group in optimizer.param_groups
        ]:
            raise UserError(
                "its optimizer groups the weights otherwise (model.layer_decay and weight_decay stay as they "
                "were where weights are divided among devices)",
                key="--ckpt_path",
            )
        names = list(self._names(optimizer))
        by_name = {
            "state": {names[number]: kept for number, kept in state["state"].items()},
            "param_groups": [
                group | {"params": [names[number] for number in group["params"]]}
                for group in state["param_groups"]
            ],
        }
        assert self.model is not None
        with self._whole(rank0_only=False):
            divided = FullyShardedDataParallel.optim_state_dict_to_load(
                model=self.model, optim=optimizer, optim_state_dict=by_name
            )
        optimizer.load_state_dict(divided)

    def _whole(self, *, rank0_only: bool) -> AbstractContextManager[None]:
        """In it states are put together, in the memory of the processor."""
        assert self.model is not None
        made: Any = _get_full_state_dict_context(self.model, self.world_size, rank0_only)
        return cast(AbstractContextManager[None], made)

    def _names(self, optimizer: Optimizer) -> Iterator[str]:
        """What the optimizer's weights are called in the undivided network, in its order."""
        assert self.model is not None
        names = {id(weight): clean_tensor_name(name) for name, weight in self.model.named_parameters()}
        for group in optimizer.param_groups:
            yield from (names[id(weight)] for weight in group["params"])


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """The layers that timm's transformers repeat: what lies in a list called `blocks`."""
    return [
        block
        for name, part in network.named_modules()
        if name.rpartition(".")[2] == "blocks" and isinstance(part, nn.Sequential | nn.ModuleList)
        for block in part
    ]


def check_sharded(strategy: Any, hyperparameters: Mapping[str, Any]) -> None:
    """Refuse what cannot be done with divided weights.

    Args:
        strategy: a trainer's.
        hyperparameters: a task's.

    Raises:
        UserError: a moving average, or Lightning's own FSDP.
    """
    if not isinstance(strategy, FSDPStrategy):
        return
    if not isinstance(strategy, Sharded):
        raise UserError(
            "Lightning's fsdp would decay no weights and clip no gradients (use the class_path "
            "focal_lab.training.fsdp.Sharded, as experiments/imagenet/fsdp.yaml does)",
            key="trainer.strategy",
        )
    if hyperparameters.get("ema_decay") is not None:
        raise UserError(
            "weights that are divided among devices have no moving average (use null, or the strategy ddp)",
            key="model.ema_decay",
        )
