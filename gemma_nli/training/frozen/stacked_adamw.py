"""AdamW over K models at once: each with its own learning rate, step count and gradient norm, in a handful of calls per
step.

torch's fused AdamW takes one learning rate and one step count for everything it updates. Folds differ in length (so in
step count), and configurations trained side by side differ in learning rate. All parameters live in one (K, P) tensor,
so a step is a dozen calls whatever the number of models; the tests hold it equal to torch.optim.AdamW model by model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class StackedAdamW:
    """Owns the trained parameters of `module`, each of which has the K models along its first dimension.

    Args:
        module: its parameters become views of one (K, P) tensor.
        rates_KS: (K, S) learning rate of each model at each of its steps.
        weight_decay: decoupled decay of every parameter whose name lacks `bias`.
        max_grad_norm: a model's gradient longer than this is scaled down to it; None leaves it.
    """

    def __init__(self, module: nn.Module, rates_KS: Tensor, weight_decay: float, max_grad_norm: float | None) -> None:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        models, device = len(rates_KS), named[0][1].device
        sizes = [p.numel() // models for _, p in named]
        self.values_KP = torch.cat([p.detach().reshape(models, -1) for _, p in named], dim=1).contiguous()
        self.grads_KP = torch.zeros_like(self.values_KP)
        self.parameters = [parameter for _, parameter in named]
        self.gradients: list[Tensor] = []
        self.mean_KP, self.square_KP = torch.zeros_like(self.values_KP), torch.zeros_like(self.values_KP)
        start = 0
        for (_, parameter), size in zip(named, sizes, strict=True):
            parameter.data = self.values_KP[:, start : start + size].view(parameter.shape)
            self.gradients.append(self.grads_KP[:, start : start + size].view(parameter.shape))
            start += size
        decayed = [
            torch.full((n,), 0.0 if "bias" in name else weight_decay) for (name, _), n in zip(named, sizes, strict=True)
        ]
        self.decay_P = torch.cat(decayed).to(device)
        self.max_grad_norm = max_grad_norm
        clock_S = torch.arange(1, rates_KS.shape[1] + 1, dtype=torch.float64)
        root_KS = torch.sqrt(1 - BETA2**clock_S).expand_as(rates_KS)
        self.rate_SK1 = rates_KS.T.unsqueeze(-1).to(device, torch.float32).contiguous()
        self.step_SK1 = (
            (rates_KS * root_KS / (1 - BETA1**clock_S)).T.unsqueeze(-1).to(device, torch.float32).contiguous()
        )
        self.epsilon_SK1 = (root_KS * EPSILON).T.unsqueeze(-1).to(device, torch.float32).contiguous()
        self.clock_K = torch.zeros(models, dtype=torch.long, device=device)
        self.models_K = torch.arange(models, device=device)

    def descend(self, loss: Tensor, asleep: Tensor | None = None) -> None:
        """One update of every model by the gradient of `loss`; `asleep` (indices) keep values, moments and step
        count.
        """
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for place, gradient in zip(self.gradients, gradients, strict=True):
                place.copy_(gradient)
            self._step(asleep)

    def _step(self, asleep: Tensor | None) -> None:
        kept = [t[asleep].clone() for t in self._tensors()] if asleep is not None else []
        grads_KP = self.grads_KP
        if self.max_grad_norm is not None:
            norm_K1 = torch.linalg.vector_norm(grads_KP, dim=1, keepdim=True)
            grads_KP.mul_((self.max_grad_norm / (norm_K1 + 1e-6)).clamp_(max=1.0))
        last = self.rate_SK1.shape[0] - 1
        at_K = self.clock_K.clamp(max=last)
        rate_K1, step_K1 = self.rate_SK1[at_K, self.models_K], self.step_SK1[at_K, self.models_K]
        self.mean_KP.lerp_(grads_KP, 1 - BETA1)
        self.square_KP.mul_(BETA2).addcmul_(grads_KP, grads_KP, value=1 - BETA2)
        self.values_KP.addcmul_(self.values_KP * self.decay_P, rate_K1, value=-1.0)
        scale_KP = self.square_KP.sqrt().add_(self.epsilon_SK1[at_K, self.models_K])
        self.values_KP.addcdiv_(self.mean_KP * step_K1, scale_KP, value=-1.0)
        self.clock_K += 1
        for tensor, rows in zip(self._tensors(), kept, strict=False):
            tensor[asleep] = rows

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.values_KP, self.mean_KP, self.square_KP, self.clock_K
