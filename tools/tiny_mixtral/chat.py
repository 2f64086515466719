"""Ways to run the model for measurements: `transformers` in process, llama.cpp over HTTP."""

import json
import urllib.request
from pathlib import Path
from typing import Any, Protocol

MAX_STORY_TOKENS = 400
MAX_ANSWER_TOKENS = 80

Messages = list[dict[str, str]]


class Runner(Protocol):
    """Completes prompts and answers dialogues."""

    def complete(self, prompts: list[str], temperature: float, seed: int) -> list[str]:
        """Return what follows each prompt; temperature 0 is greedy."""

    def answer(self, dialogues: list[Messages]) -> list[str]:
        """Return the greedy next answer of each dialogue, through the chat template."""


class TransformersRunner:
    """Runs a safetensors folder on CPU, in its own bfloat16 weights with float32 arithmetic."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from transformers import AutoTokenizer, MixtralForCausalLM

        torch.set_num_threads(threads)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def generate(self, texts: list[str], limit: int, temperature: float) -> list[str]:
        """Continue texts that already carry their special tokens."""
        done: list[str] = []
        for start in range(0, len(texts), 50):
            batch = self.tokenizer(
                texts[start : start + 50],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
                return_token_type_ids=False,
            )
            options = {"do_sample": True, "temperature": temperature} if temperature else {}
            output = self.model.generate(
                **batch,
                max_new_tokens=limit,
                pad_token_id=self.tokenizer.pad_token_id,
                **({"top_k": 0} | options if options else {"do_sample": False}),
            )
            new = output[:, batch["input_ids"].shape[1] :]
            done += self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return done

    def complete(self, prompts: list[str], temperature: float, seed: int) -> list[str]:
        """Continue prompts after a BOS."""
        self.torch.manual_seed(seed)
        return self.generate([f"<s>{prompt}" for prompt in prompts], MAX_STORY_TOKENS, temperature)

    def answer(self, dialogues: list[Messages]) -> list[str]:
        """Answer greedily."""
        texts = [
            self.tokenizer.apply_chat_template(d, tokenize=False, add_generation_prompt=True)
            for d in dialogues
        ]
        return [text.strip() for text in self.generate(texts, MAX_ANSWER_TOKENS, 0.0)]


class LlamaRunner:
    """Runs a GGUF file in llama.cpp's own server (xllamacpp), over HTTP."""

    def __init__(self, path: Path, threads: int) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = 2048
        parameters.n_parallel = 1
        parameters.port = 0
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(parameters)
        self.address = self.server.listening_address

    def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON and return JSON; each request has its own connection."""
        request = urllib.request.Request(  # noqa: S310 (the server that this class started)
            self.address + route,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
            reply: dict[str, Any] = json.load(response)
            return reply

    def complete(self, prompts: list[str], temperature: float, seed: int) -> list[str]:
        """Continue prompts after a BOS."""
        bodies = [
            {
                "prompt": prompt,
                "max_tokens": MAX_STORY_TOKENS,
                "temperature": temperature,
                "seed": seed + number,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
            }
            for number, prompt in enumerate(prompts)
        ]
        return [self.post("/v1/completions", body)["choices"][0]["text"] for body in bodies]

    def answer(self, dialogues: list[Messages]) -> list[str]:
        """Answer greedily."""
        bodies = [
            {"messages": messages, "temperature": 0.0, "max_tokens": MAX_ANSWER_TOKENS}
            for messages in dialogues
        ]
        replies = (self.post("/v1/chat/completions", body) for body in bodies)
        return [reply["choices"][0]["message"]["content"].strip() for reply in replies]


def open_runner(model: Path, threads: int) -> Runner:
    """Choose by what the path is: a `.gguf` file or a safetensors folder."""
    runner = LlamaRunner if model.suffix == ".gguf" else TransformersRunner
    return runner(model, threads)
