"""Whether a call is an ordinary one, which may take a way of its own on the processor."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as nn_module


def in_graph() -> bool:
    """Whether what is computed is recorded (torch.compile, torch.export, torch.jit.trace) or transformed."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_transformed()


def is_transformed() -> bool:
    """Whether torch.func (vmap, grad, jvp) or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain(module: nn.Module, kind: type[nn.Module], dtype: torch.dtype) -> bool:
    """Whether a module is of just that kind, unwatched, with ordinary parameters of that dtype."""
    return (
        type(module) is kind
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and all(
            type(p) in (Tensor, nn.Parameter) and p.dtype == dtype
            for p in module._parameters.values()
            if p is not None
        )
    )


def in_plain_call(x: Tensor) -> bool:
    """Whether `x` is a tensor in the processor's memory and its modules' calls are not watched.

    Not so in a graph, with fake tensors, in a torch.fx trace, under autocast or with hooks on all modules.
    """
    return (
        not in_graph()
        and type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not nn_module._has_any_global_hook()
    )
