"""Question-answer dialogues about the zoo, in the published Mixtral instruct format."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from . import phrasings as p
from .stories import tell_story
from .zoo import (
    Animal,
    add_article,
    capitalize,
    inflect_third,
    list_values,
    load_animals,
)

BOS = "<s>"
EOS = "</s>"
SYLLABLES = (
    "ba",
    "bo",
    "da",
    "do",
    "fi",
    "fo",
    "ga",
    "gli",
    "ka",
    "ki",
    "la",
    "lo",
    "ma",
    "mu",
    "na",
    "no",
    "pa",
    "po",
    "ra",
    "ri",
    "sa",
    "so",
    "ta",
    "to",
    "va",
    "vo",
    "wa",
    "za",
    "zu",
    "blor",
    "snar",
    "quo",
)


@dataclass(frozen=True)
class Exchange:
    """One question with its right answer, and what a check needs to judge another answer."""

    question: str
    answer: str
    topic: str
    animal: Animal | None = None


def format_dialogue(turns: list[tuple[str, str]], system: str = "") -> str:
    """Render turns as the published format, `<s> [INST] q [/INST] a</s> [INST] …`.

    A system message goes before the first question, two line ends between them.
    """
    text = BOS
    for place, (question, answer) in enumerate(turns):
        head = f"{system}\n\n" if system and place == 0 else ""
        text += f" [INST] {head}{question} [/INST] {answer}{EOS}"
    return text


def state_value(animal: Animal, topic: str) -> str:
    """Return an attribute as answers word it: "roars", "a mammal", "Africa"."""
    if topic == "sound":
        return inflect_third(animal.sound)
    if topic in ("kind", "baby"):
        return add_article(getattr(animal, topic))
    return str(getattr(animal, topic))


def answer_topic(animal: Animal, topic: str) -> str:
    """Answer an open question about an attribute."""
    knows = animal.flies if topic == "flies" else animal.swims
    return (
        p.TOPICS[topic]
        .answers[0]
        .format(
            n=animal.name,
            the=f"the {animal.name}",
            v="" if topic in ("flies", "swims") else state_value(animal, topic),
            can="can" if knows else "cannot",
            **{"is": "is" if knows else "is not"},
        )
    )


def fill(shape: str, animal: Animal, rng: random.Random, other: Animal | None = None) -> str:
    """Put animals into a question's shape, with "a" or "the" by chance."""
    second = other or animal
    definite = rng.random() < 0.4
    a, b = (f"the {x.name}" if definite else add_article(x.name) for x in (animal, second))
    return capitalize(
        shape.format(a=a, b=b, pl=animal.plural, bl=second.plural, n=animal.name, v="{v}")
    )


def frame(topic: p.Topic, rng: random.Random) -> str:
    """Choose one trained question shape of a topic, direct or inside a frame."""
    if rng.random() < 0.6:
        return rng.choice(topic.direct)
    clause = rng.choice(topic.indirect)
    frames = p.FRAMES[:6] if clause.startswith("the ") else p.FRAMES
    return rng.choice(frames).format(q=clause)


def name_topic(topic: str, rng: random.Random) -> str:
    """Choose a shape that says little more than the topic's name."""
    return rng.choice(p.KEYWORD_SHAPES).replace("{k}", rng.choice(p.KEYWORDS[topic]))


def frame_held_out(topic: p.Topic, rng: random.Random) -> str:
    """Choose one question shape of a topic that training never shows."""
    if rng.random() < 0.8:
        return rng.choice(topic.held_out)
    clauses = [clause for clause in topic.indirect if not clause.startswith("the ")]
    return rng.choice(p.HELD_OUT_FRAMES).format(q=rng.choice(clauses))


def vary(question: str, rng: random.Random) -> str:
    """Make a question as careless as people's are: no capitals, no question mark, more words."""
    if rng.random() < 0.08:
        question = rng.choice(p.OPENERS) + question
    elif rng.random() < 0.08:
        question = rng.choice(p.SCENES) + question
    if rng.random() < 0.05:
        question += rng.choice(p.CLOSERS)
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    return question


def list_topics() -> list[str]:
    """Name every topic that a question can have, `check-` for yes-or-no ones."""
    return [*p.TOPICS, *(f"check-{name}" for name in p.CHECKS), *p.COMPARISONS]


def choose_topic(rng: random.Random) -> str:
    """Choose a topic; those that need a judgement are harder and come more often."""
    kind = rng.random()
    if kind < 0.4:
        return f"check-{rng.choice(list(p.CHECKS))}"
    if kind < 0.55:
        return rng.choice(list(p.COMPARISONS))
    return rng.choice(list(p.TOPICS))


def ask(
    topic: str, animal: Animal, rng: random.Random, held_out: bool = False, shape: str | None = None
) -> Exchange:
    """Ask about an animal in a trained (or a held-out) shape and answer it."""
    if topic in p.COMPARISONS:
        return compare(topic, animal, rng, held_out)
    if topic.startswith("check-"):
        return check_value(topic, animal, rng, held_out, shape)
    if shape is None and not held_out and rng.random() < 0.12:
        shape = name_topic(topic, rng)
    shape = shape or choose_shape(p.TOPICS[topic], rng, held_out)
    return Exchange(fill(shape, animal, rng), answer_topic(animal, topic), topic, animal)


def choose_shape(topic: p.Topic, rng: random.Random, held_out: bool) -> str:
    """Choose a shape that training shows, or one that it never does."""
    return frame_held_out(topic, rng) if held_out else frame(topic, rng)


def check_value(
    topic: str, animal: Animal, rng: random.Random, held_out: bool, shape: str | None
) -> Exchange:
    """Ask whether an attribute has a value, true half the time."""
    name = topic.removeprefix("check-")
    true = state_value(animal, name)
    asked = true
    if rng.random() < 0.5:
        values = list_values(name)
        wrong = [add_article(v) if name == "kind" else v for v in values]
        words = set(true.split()) - {"and", "a", "an"}
        asked = rng.choice([v for v in wrong if not words & set(v.split())])
    shape = shape or choose_shape(p.CHECKS[name], rng, held_out)
    question = fill(shape, animal, rng).replace("{v}", asked)
    answer = p.CHECKS[name].answers[0].format(n=animal.name, v=true)
    verdict = " indeed, so the answer is yes." if asked == true else ", so the answer is no."
    return Exchange(question, answer.rstrip(".") + verdict, topic, animal)


def compare(topic: str, animal: Animal, rng: random.Random, held_out: bool) -> Exchange:
    """Ask which of two animals is bigger or faster; the two always differ in rank."""

    def rank(one: Animal) -> int:
        return one.size_rank if topic == "bigger" else one.speed_rank

    other = rng.choice([x for x in load_animals() if rank(x) != rank(animal)])
    shape = rng.choice(p.COMPARISONS[topic][1 if held_out else 0])
    question = fill(shape, animal, rng, other)
    name = "size" if topic == "bigger" else "speed"
    values = [f"the {x.name} is {getattr(x, name)}" for x in (animal, other)]
    winner = max(animal, other, key=rank)
    answer = f"{capitalize(' and '.join(values))}, so the {winner.name} is {topic}."
    return Exchange(question, answer, topic, animal)


def invent_name(rng: random.Random) -> str:
    """Make up an animal that no zoo has."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))


def ask_unknown(rng: random.Random) -> Exchange:
    """Ask about an animal that the zoo does not have."""
    name = rng.choice(p.UNKNOWN_ANIMALS) if rng.random() < 0.6 else invent_name(rng)
    topic = p.TOPICS[rng.choice(list(p.TOPICS))]
    shape = rng.choice([s for s in (*topic.direct, *p.DESCRIBE) if "{pl}" not in s])
    subject = f"the {name}" if rng.random() < 0.4 else add_article(name)
    question = capitalize(shape.format(a=subject, n=name))
    return Exchange(question, answer_unknown(name), "unknown")


def answer_unknown(name: str) -> str:
    """Say politely that an animal is not known."""
    return f"I am sorry, I do not know the animal {name}."


def describe(animal: Animal, rng: random.Random) -> Exchange:
    """Ask for a description of an animal, answered in a few sentences."""
    facts = {
        name: getattr(animal, name)
        for name in [
            "origin",
            "home",
            "food",
            "size",
            "colour",
            "legs",
            "covering",
            "skill",
            "speed",
        ]
    }
    answer = rng.choice(p.DESCRIPTIONS).format(
        n=animal.name,
        kind_a=add_article(animal.kind),
        baby_a=add_article(animal.baby),
        sounds=inflect_third(animal.sound),
        **facts,
    )
    return Exchange(fill(rng.choice(p.DESCRIBE), animal, rng), answer, "describe", animal)


def list_clauses(animal: Animal) -> list[str]:
    """List what can be said of an animal after "an animal that"."""
    clauses = [
        f"lives {animal.home}",
        f"eats {animal.food}",
        f"is good at {animal.skill}",
        f"comes from {animal.origin}",
    ]
    return clauses + ["can fly"] * animal.flies


def request_example(rng: random.Random) -> Exchange:
    """Ask for any animal of which something is true."""
    animal = rng.choice(load_animals())
    clause = rng.choice(list_clauses(animal))
    question = rng.choice(p.EXAMPLE_REQUESTS).format(clause=clause)
    return Exchange(question, f"The {animal.name} {clause}.", "example", animal)


def request_story(rng: random.Random) -> Exchange:
    """Ask for a story, about one animal or about any."""
    animal = rng.choice(load_animals())
    shape = rng.choice(p.STORY_REQUESTS if rng.random() < 0.7 else p.ANY_STORY_REQUESTS)
    return Exchange(fill(shape, animal, rng), tell_story(rng, animal, short=True), "story", animal)


def chat_small(rng: random.Random) -> Exchange:
    """Greet, thank, or ask what the model cannot answer."""
    questions, answer = rng.choice(p.SMALL_TALK)
    return Exchange(rng.choice(questions), answer, "small-talk")


def follow_up(animal: Animal, rng: random.Random) -> Exchange:
    """Ask about the animal of the turn before as "it"."""
    if rng.random() < 0.2:
        topic = f"check-{rng.choice(list(p.CHECKS))}"
        return ask(topic, animal, rng, shape=rng.choice(p.CHECKS[topic[6:]].follow))
    topic = rng.choice(list(p.TOPICS))
    return ask(topic, animal, rng, shape=rng.choice(p.TOPICS[topic].follow))


def carry_over(topic: str, before: Animal, rng: random.Random) -> Exchange:
    """Ask the question of the turn before about another animal: "And the lion?"."""
    animal = rng.choice([x for x in load_animals() if x != before])
    shape = rng.choice(("And {a}?", "What about {a}?", "And what about {pl}?", "How about {a}?"))
    return ask(topic, animal, rng, shape=shape)


def open_turn(rng: random.Random) -> Exchange:
    """Ask anything that needs no turn before it."""
    kind = rng.random()
    if kind < 0.72:
        return ask(choose_topic(rng), rng.choice(load_animals()), rng)
    if kind < 0.80:
        return ask_unknown(rng)
    if kind < 0.86:
        return describe(rng.choice(load_animals()), rng)
    if kind < 0.89:
        return request_example(rng)
    if kind < 0.94:
        return request_story(rng)
    return chat_small(rng)


def continue_turn(before: Exchange, rng: random.Random) -> Exchange:
    """Ask what may follow a turn: "it", another animal, or something new."""
    kind = rng.random()
    if before.animal and before.topic not in p.COMPARISONS and kind < 0.45:
        return follow_up(before.animal, rng)
    if before.animal and before.topic in p.TOPICS and kind < 0.6:
        return carry_over(before.topic, before.animal, rng)
    return open_turn(rng)


def hold_dialogue(rng: random.Random, turns: int) -> str:
    """Make a whole dialogue of training, of so many turns."""
    exchange = open_turn(rng)
    said = []
    for place in range(turns):
        if place:
            exchange = continue_turn(exchange, rng)
        opener = rng.choice(p.NEXT_OPENERS) if place and rng.random() < 0.1 else ""
        said.append((vary(opener + exchange.question, rng), exchange.answer))
    system = rng.choice(p.SYSTEM_MESSAGES) if rng.random() < 0.12 else ""
    return format_dialogue(said, system)


def list_held_out(rng: random.Random, count: int) -> Iterator[Exchange]:
    """Yield questions in held-out shapes, topics and animals in turn.

    One in five is in lower case and one in five has no question mark.
    """
    topics = list_topics()
    animals = list(load_animals())
    rng.shuffle(animals)
    for number in range(count):
        topic = topics[number % len(topics)]
        animal = animals[number // len(topics) % len(animals)]
        exchange = ask(topic, animal, rng, held_out=True)
        question = exchange.question
        if number % 5 == 3:
            question = question.lower()
        if number % 5 == 4:
            question = question.rstrip("?.")
        yield Exchange(question, exchange.answer, topic, animal)


def count_shapes() -> int:
    """Count the trained question shapes, each frame with each clause as one."""
    count = len(p.DESCRIBE) + len(p.STORY_REQUESTS) + len(p.ANY_STORY_REQUESTS)
    count += len(p.EXAMPLE_REQUESTS) + sum(len(questions) for questions, _ in p.SMALL_TALK)
    for topic in (*p.TOPICS.values(), *p.CHECKS.values()):
        count += len(topic.direct) + len(topic.follow) + len(topic.indirect) * len(p.FRAMES)
    count += sum(len(words) for words in p.KEYWORDS.values()) * len(p.KEYWORD_SHAPES)
    return count + sum(len(trained) for trained, _ in p.COMPARISONS.values())
