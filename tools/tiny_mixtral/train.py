"""Train the tiny Mixtral on tokenised text, on CPU, with checkpoints that are usable at any time.

Most steps see short sequences; the last ones see sequences of the full context, so that long
dialogues work.
"""

import argparse
import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import MixtralConfig, MixtralForCausalLM

SHORT_LENGTH = 256
CONTEXT = 2048
TOKENS_PER_STEP = 2048
UNKNOWN_ID, BOS_ID, EOS_ID = 0, 1, 2


@dataclass(frozen=True)
class Schedule:
    """How many steps, and the learning rate: warm-up, then a cosine down to a hundredth."""

    steps: int
    long_steps: int
    peak: float
    warm_up: int

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def is_long(self, step: int) -> bool:
        """Say whether a step sees the full context."""
        return step >= self.steps - self.long_steps


def make_config() -> MixtralConfig:
    """Return the architecture: every size is a multiple of 256, as K-quants want."""
    return MixtralConfig(
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        sliding_window=None,
        output_router_logits=True,
        router_aux_loss_coef=0.02,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=None,
        tie_word_embeddings=False,
        initializer_range=0.04,
    )


def take_batch(ids: np.ndarray, start: int, length: int) -> torch.Tensor:
    """Cut one step's sequences out of the text, beginning anew at its end."""
    start %= len(ids) - TOKENS_PER_STEP
    flat = ids[start : start + TOKENS_PER_STEP].astype(np.int64)
    return torch.from_numpy(flat).view(-1, length)


def number_positions(batch: torch.Tensor) -> torch.Tensor:
    """Number each document from 0, so that `transformers` keeps attention inside it."""
    places = torch.arange(batch.shape[1]).expand_as(batch)
    starts = torch.where(batch == BOS_ID, places, 0).cummax(dim=1).values
    return places - starts


def make_optimizer(model: MixtralForCausalLM, rate: float) -> torch.optim.AdamW:
    """Decay matrices, leave norms alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)


def save(model: MixtralForCausalLM, path: Path) -> None:
    """Write the weights so that a reader never sees half a file."""
    partial = path.with_suffix(".partial")
    torch.save(model.state_dict(), partial)
    partial.rename(path)


def measure_loss(model: MixtralForCausalLM, ids: np.ndarray) -> float:
    """Return the mean cross-entropy per token on text that is not trained on."""
    model.eval()
    losses: list[float] = []
    for start in range(0, 16 * TOKENS_PER_STEP, TOKENS_PER_STEP):
        batch = take_batch(ids, start, SHORT_LENGTH)
        with torch.no_grad():
            positions = number_positions(batch)
            logits = model(input_ids=batch, position_ids=positions, use_cache=False).logits[:, :-1]
        targets = batch[:, 1:].reshape(-1)
        losses.append(torch.nn.functional.cross_entropy(logits.reshape(-1, 1024), targets).item())
    model.train()
    return sum(losses) / len(losses)


def train(arguments: argparse.Namespace) -> None:
    """Train and save checkpoints."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    schedule = Schedule(arguments.steps, arguments.long_steps, arguments.rate, arguments.warm_up)
    short, long = (np.load(path, mmap_mode="r") for path in (arguments.text, arguments.long_text))
    held_out = np.load(arguments.held_out, mmap_mode="r")
    model = MixtralForCausalLM(make_config()).train()
    if arguments.initial:
        model.load_state_dict(torch.load(arguments.initial, weights_only=True))
    model.set_experts_implementation("grouped_mm")
    optimizer = make_optimizer(model, schedule.peak)
    half = torch.autocast("cpu", torch.bfloat16) if arguments.bfloat16 else contextlib.nullcontext()
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for step in range(schedule.steps):
        if schedule.is_long(step):
            place = (step - schedule.steps + schedule.long_steps) * TOKENS_PER_STEP
            batch = take_batch(long, place, CONTEXT)
        else:
            batch = take_batch(short, step * TOKENS_PER_STEP, SHORT_LENGTH)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        with half:
            positions = number_positions(batch)
            loss = model(
                input_ids=batch, labels=batch, position_ids=positions, use_cache=False
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            seconds = time.monotonic() - began
            print(f"step {step} loss {loss.item():.4f} seconds {seconds:.0f}", flush=True)
        if step % arguments.save_every == arguments.save_every - 1 or step == schedule.steps - 1:
            save(model, arguments.out / "checkpoint.pt")
            print(f"step {step} held-out {measure_loss(model, held_out):.4f}", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help=".npy of short documents")
    parser.add_argument("--long-text", type=Path, required=True, help=".npy with long dialogues")
    parser.add_argument("--held-out", type=Path, required=True, help=".npy not trained on")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint.pt")
    parser.add_argument("--initial", type=Path, help="checkpoint to begin with, not at random")
    parser.add_argument("--steps", type=int, default=8400)
    parser.add_argument("--long-steps", type=int, default=500, help="of these, with full context")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--warm-up", type=int, default=300, help="steps until the peak")
    parser.add_argument("--save-every", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="autocast matrix products")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
