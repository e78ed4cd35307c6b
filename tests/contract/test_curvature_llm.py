"""The curvature of a language model: transformers and the curvature module live in one process."""

import torch
from torch.nn import functional as F

from hiso_bench.curvature import Curvature, differentiable
from hiso_bench.losses import ModuleLoss


def test_an_opt_model_has_a_gradient_and_hessian_vector_products():
    from transformers import OPTConfig, OPTForCausalLM

    shape = {"vocab_size": 20, "hidden_size": 8, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"max_position_embeddings": 16, "word_embed_proj_dim": 8, "activation_function": "gelu"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OPTForCausalLM(OPTConfig(attn_implementation="eager", **shape)).eval()

    def per_example(net, batch):
        logits = net(input_ids=batch[0]).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten(), reduction="none")

    loss = ModuleLoss(model.double(), per_example)
    x, batch = loss.base_point(), (torch.arange(4, 16).reshape(2, 6),)  # not the padding token: its row gets no gradient
    f = differentiable(loss, batch)
    at = Curvature(f, x)
    v = torch.linspace(-1, 1, at.dimension, dtype=torch.float64)
    t = 1e-6
    sizes = [leaf.numel() for leaf in x]
    moved = [tuple(a + s * t * b.reshape(a.shape) for a, b in zip(x, v.split(sizes), strict=True)) for s in (1, -1)]
    slope = (Curvature(f, moved[0]).gradient - Curvature(f, moved[1]).gradient) / (2 * t)
    torch.testing.assert_close(at.product(v), slope, rtol=1e-3, atol=1e-3)
