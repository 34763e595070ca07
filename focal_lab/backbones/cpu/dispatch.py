"""Checks for tracing and for modified modules, for which shortcuts would be wrong."""

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def in_graph() -> bool:
    """Whether computation is traced (torch.compile, torch.export, torch.jit.trace) or transformed."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_transformed()


def is_transformed() -> bool:
    """Whether torch.func (vmap, grad, jvp) or forward-mode differentiation is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether using a module's weights directly gives the same as calling it.

    Not so with hooks (its own or global), parametrizations, another `forward` (a subclass such as a low-rank
    adapter or a quantized layer, or a patched module or class), or weights that are tensor subclasses.
    """
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    of_all_modules = *_global_forward_hooks.values(), *_global_forward_pre_hooks.values()
    return (
        type(module) is kind
        and not any(hooks)
        # torch's own, such as the FLOP counter's, only observe
        and all(hook.__module__.startswith("torch.") for hook in of_all_modules)
        and "forward" not in vars(module)
        and kind.forward.__module__ == kind.__module__
        and not any(is_traceable_wrapper_subclass(weight) for weight in module.parameters(recurse=False))
    )
