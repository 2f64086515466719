"""What sentence-transformers says itself, in one process of its environment."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from paddock.engines import load_engine

TEXTS = [
    "The elephant eats grass.",
    "An animal with a trunk feeds on plants.",
    "The stock market fell today.",
    "a",
    "Elephants, lions and zebras live in the zoo, where many people come to look at them. " * 6,
]
QUERY = "What does the elephant eat?"
SECONDS = 300
CODE = """
import json, sys, torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
from sentence_transformers import CrossEncoder, SentenceTransformer
trained, folder, query, texts = *sys.argv[1:4], json.loads(sys.argv[4])
model = SentenceTransformer(trained, device="cpu")
vectors = model.encode(texts, batch_size=1).tolist()
tokens = [len(model.tokenizer(text)["input_ids"]) for text in texts]
torch.manual_seed(0)
config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                    intermediate_size=128, num_labels=1, initializer_range=0.5)
BertForSequenceClassification(config).save_pretrained(folder)
AutoTokenizer.from_pretrained(trained).save_pretrained(folder)
ranker = CrossEncoder(folder, device="cpu", max_length=512)
pairs = [(query, text) for text in texts]
print(json.dumps({
    "vectors": vectors,
    "tokens": tokens,
    "scores": ranker.predict(pairs, batch_size=1).tolist(),
    "pair_tokens": sum(len(ranker.tokenizer(*pair)["input_ids"]) for pair in pairs),
}))
"""


@dataclass(frozen=True)
class Told:
    """The vectors and lengths of `TEXTS`, and their scores for `QUERY` by the model in `ranker`."""

    ranker: Path
    vectors: list[list[float]]
    tokens: list[int]
    scores: list[float]
    pair_tokens: int


def ask(home: Path, trained: Path, folder: Path) -> Told:
    """Embeds by the trained model; makes a cross-encoder that nobody has trained, and ranks."""
    environment = load_engine("sentence_transformers").environment
    assert environment is not None
    made = environment.installed(home)
    assert made is not None
    arguments = (str(trained), str(folder), QUERY, json.dumps(TEXTS))
    command = [str(made.python), "-c", CODE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return Told(folder, **json.loads(done.stdout.splitlines()[-1]))
