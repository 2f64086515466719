"""Measure what the model knows and how it writes; print the figures as JSON.

Questions come in phrasings that training never shows (`phrasings.py`, `held_out`), one in five in
lower case and one in five without its question mark. Stories are greedy and sampled, and parsed by
the generator's own grammar.
"""

import argparse
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from . import phrasings as p
from .chat import Messages, Runner, open_runner
from .dialogues import Exchange, answer_unknown, ask, fill, follow_up, list_held_out, list_topics
from .grammar import count_known_words, parse_story
from .stories import ADJECTIVES
from .zoo import load_animals

QUESTION_SEED = 77
DIALOGUE_SEED = 78
STORY_SEED = 79


def is_right(exchange: Exchange, answer: str) -> bool:
    """Judge an answer: it must be the right animal's right value, as a whole sentence.

    The model has one way to answer each topic, so the test is equality with the right answer,
    letter case and the final full stop apart.
    """
    return answer.strip().rstrip(".").lower() == exchange.answer.rstrip(".").lower()


def ask_one(exchange: Exchange) -> Messages:
    """Return a dialogue of one question."""
    return [{"role": "user", "content": exchange.question}]


def measure_answers(runner: Runner, count: int) -> dict[str, Any]:
    """Ask held-out questions one by one."""
    exchanges = list(list_held_out(random.Random(QUESTION_SEED), count))
    answers = runner.answer([ask_one(exchange) for exchange in exchanges])
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    wrong = []
    for exchange, answer in zip(exchanges, answers, strict=True):
        good = is_right(exchange, answer)
        for name in ("all", exchange.topic):
            asked[name] += 1
            right[name] += good
        if not good:
            wrong.append([exchange.question, answer, exchange.answer])
    shares = {name: round(right[name] / asked[name], 4) for name in asked}
    return {"questions": asked["all"], "right": shares, "wrong": wrong[:20]}


def measure_unknown(runner: Runner, count: int) -> dict[str, Any]:
    """Ask about animals that neither the zoo nor the training has."""
    rng = random.Random(QUESTION_SEED)
    names = itertools.islice(itertools.cycle(p.HELD_OUT_UNKNOWN), count)
    topics = [name for name in p.TOPICS if any("{a}" in s for s in p.TOPICS[name].held_out)]
    said = []
    for name in names:
        shapes = [s for s in p.TOPICS[rng.choice(topics)].held_out if "{pl}" not in s]
        question = rng.choice(shapes).format(a=f"the {name}", n=name)
        said.append((name, question[0].upper() + question[1:]))
    answers = runner.answer([[{"role": "user", "content": question}] for _, question in said])
    pairs = list(zip(said, answers, strict=True))
    refused = sum(answer.startswith("I am sorry, I do not know") for _, answer in pairs)
    exact = sum(answer == answer_unknown(name) for (name, _), answer in pairs)
    return {"questions": count, "refused": refused / count, "named exactly": exact / count}


def measure_dialogues(runner: Runner, count: int, turns: int = 5) -> dict[str, Any]:
    """Hold dialogues in which the model's own answers stay.

    Each begins with a held-out question and goes on with trained questions about "it"; half-way it
    turns to another animal, with a held-out question.
    """
    rng = random.Random(DIALOGUE_SEED)
    right: Counter[int] = Counter()
    talks: list[Messages] = [[] for _ in range(count)]
    animals = [rng.choice(load_animals()) for _ in range(count)]
    for turn in range(turns):
        exchanges = []
        for number, talk in enumerate(talks):
            if turn == 0 or turn == turns // 2:
                animals[number] = rng.choice(load_animals())
                topics = [t for t in list_topics() if t not in p.COMPARISONS]
                exchange = ask(rng.choice(topics), animals[number], rng, held_out=True)
            else:
                exchange = follow_up(animals[number], rng)
            exchanges.append(exchange)
            talk.append({"role": "user", "content": exchange.question})
        for talk, exchange, answer in zip(talks, exchanges, runner.answer(talks), strict=True):
            right[turn] += is_right(exchange, answer)
            talk.append({"role": "assistant", "content": answer})
    return {
        "dialogues": count,
        "turns": turns,
        "right": round(sum(right.values()) / (count * turns), 4),
        "right by turn": [round(right[turn] / count, 4) for turn in range(turns)],
    }


def list_prompts(count: int) -> list[str]:
    """List story prompts, "The old elephant" first, each adjective and animal in turn."""
    pairs = [(adj, animal.name) for adj in ADJECTIVES for animal in load_animals()]
    random.Random(STORY_SEED).shuffle(pairs)
    return [f"The {adj} {name}" for adj, name in [("old", "elephant"), *pairs]][:count]


def measure_stories(
    runner: Runner, prompts: list[str], temperature: float, seed: int
) -> dict[str, Any]:
    """Tell stories and parse them."""
    rests = runner.complete(prompts, temperature, seed)
    told = [prompt + rest for prompt, rest in zip(prompts, rests, strict=True)]
    parses = [parse_story(text) for text in told]
    words, known_words = map(sum, zip(*map(count_known_words, told), strict=True))
    sentences = sum(parse.sentences for parse in parses)
    claims = sum(parse.claims for parse in parses)
    return {
        "stories": len(told),
        "sentences": sentences,
        "sentences that parse": round(sum(parse.known for parse in parses) / sentences, 4),
        "stories that parse whole": round(
            sum(parse.known == parse.sentences for parse in parses) / len(told), 4
        ),
        "stories that end": round(sum(parse.ended for parse in parses) / len(told), 4),
        "stories of one animal": round(sum(parse.same_animal for parse in parses) / len(told), 4),
        "stories of one keeper": round(sum(parse.same_keeper for parse in parses) / len(told), 4),
        "true claims": round(sum(parse.true_claims for parse in parses) / max(1, claims), 4),
        "known words": round(known_words / words, 4),
        "different stories": len(set(told)),
        "median words": sorted(len(text.split()) for text in told)[len(told) // 2],
        "first": told[:12],
    }


def measure_requests(runner: Runner, count: int) -> dict[str, Any]:
    """Ask for stories about an animal in the chat and parse them."""
    rng = random.Random(STORY_SEED)
    animals = [rng.choice(load_animals()) for _ in range(count)]
    talks = [
        [{"role": "user", "content": fill(rng.choice(p.STORY_REQUESTS), animal, rng)}]
        for animal in animals
    ]
    answers = runner.answer(talks)
    asked = sum(animal.name in text for animal, text in zip(animals, answers, strict=True))
    parses = [parse_story(text) for text in answers]
    known, sentences = sum(x.known for x in parses), sum(x.sentences for x in parses)
    return {
        "requests": count,
        "about the animal": asked / count,
        "sentences that parse": round(known / sentences, 4),
        "first": answers[:3],
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder or .gguf file")
    parser.add_argument("--questions", type=int, default=1344)
    parser.add_argument("--dialogues", type=int, default=100)
    parser.add_argument("--stories", type=int, default=200, help="greedy, and as many sampled")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    runner = open_runner(arguments.model, arguments.threads)
    prompts = list_prompts(arguments.stories)
    figures = {
        "answers": measure_answers(runner, arguments.questions),
        "unknown": measure_unknown(runner, 40),
        "dialogues": measure_dialogues(runner, arguments.dialogues),
    }
    if prompts:
        figures["story requests"] = measure_requests(runner, 20)
        figures["stories, greedy"] = measure_stories(runner, prompts, 0.0, STORY_SEED)
        figures["stories, temperature 0.8"] = measure_stories(runner, prompts, 0.8, STORY_SEED)
    print(json.dumps(figures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
