"""The score that a language model's answer gives: yes against no."""

from __future__ import annotations

from torch import Tensor


def yes_no_logit(states: Tensor, head_weight: Tensor, yes_id: int, no_id: int) -> Tensor:
    """log p(yes) - log p(no) at each hidden state: the normaliser cancels, so it is `(w_yes - w_no) . h`.

    Args:
        states: (..., H) hidden states after the final norm.
        head_weight: (V, H) LM head.
        yes_id: vocabulary id of the positive answer.
        no_id: vocabulary id of the negative answer.

    Returns:
        (...) scores in nats; higher is more relevant.
    """
    yes, no = head_weight[yes_id].to(states.dtype), head_weight[no_id].to(states.dtype)  # before they are subtracted
    return states @ (yes - no)
