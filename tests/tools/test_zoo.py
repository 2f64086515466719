"""The generator of tiny-mixtral's training text, without torch."""

import random
import re
from dataclasses import fields

import pytest
from tiny_mixtral import corpus, dialogues, phrasings, stories, zoo
from tiny_mixtral.grammar import parse_story

DOCUMENTS = 4000
TURN = re.compile(r" \[INST\] (.+?) \[/INST\] (.+?)</s>", re.DOTALL)


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(corpus.generate_documents(seed=2, count=DOCUMENTS))


def normalize(question: str) -> str:
    return re.sub(r"[^a-z ]", "", question.lower()).strip()


def list_fixed_parts(shape: str) -> str:
    """Return a shape with every slot as one mark and its case and stops dropped."""
    return normalize(re.sub(r"\{\w+\}", "x", shape))


def list_trained_shapes() -> set[str]:
    shapes = [*phrasings.DESCRIBE, *phrasings.STORY_REQUESTS, *phrasings.ANY_STORY_REQUESTS]
    for topic in (*phrasings.TOPICS.values(), *phrasings.CHECKS.values()):
        shapes += [*topic.direct, *topic.follow]
        shapes += [frame.format(q=q) for frame in phrasings.FRAMES for q in topic.indirect]
    for trained, _ in phrasings.COMPARISONS.values():
        shapes += trained
    for name, words in phrasings.KEYWORDS.items():
        assert name in phrasings.TOPICS
        shapes += [s.replace("{k}", word) for s in phrasings.KEYWORD_SHAPES for word in words]
    return {list_fixed_parts(shape) for shape in shapes}


def list_held_out_shapes() -> set[str]:
    shapes: list[str] = []
    for topic in (*phrasings.TOPICS.values(), *phrasings.CHECKS.values()):
        shapes += topic.held_out
        shapes += [frame.format(q=q) for frame in phrasings.HELD_OUT_FRAMES for q in topic.indirect]
    for _, held_out in phrasings.COMPARISONS.values():
        shapes += held_out
    return {list_fixed_parts(shape) for shape in shapes}


def test_zoo_has_many_animals_with_every_attribute() -> None:
    """The zoo has at least fifty animals of different names, none with an empty attribute."""
    animals = zoo.load_animals()
    assert len({animal.name for animal in animals}) == len(animals) >= 50
    for animal in animals:
        assert all(getattr(animal, field.name) != "" for field in fields(animal)), animal.name
        assert animal.size in zoo.SIZES
        assert animal.speed in zoo.SPEEDS


def test_same_seed_gives_same_text(documents: list[str]) -> None:
    """The generator is deterministic for a seed, and another seed gives other text."""
    assert list(corpus.generate_documents(seed=2, count=200)) == documents[:200]
    assert list(corpus.generate_documents(seed=3, count=200)) != documents[:200]


def test_there_are_several_hundred_sentence_shapes() -> None:
    """Stories and questions each have several hundred shapes, all different."""
    shapes = stories.list_shapes()
    assert len(set(shapes)) >= 300
    assert dialogues.count_shapes() >= 500


def test_no_held_out_shape_is_a_trained_shape() -> None:
    """At least a hundred held-out phrasings exist and none of them is among the trained ones."""
    held_out = list_held_out_shapes()
    assert len(held_out) >= 100
    assert not held_out & list_trained_shapes()


def test_no_held_out_question_occurs_in_training(documents: list[str]) -> None:
    """No question of the evaluation occurs in training text, letter case and punctuation apart."""
    asked = {normalize(e.question) for e in dialogues.list_held_out(random.Random(77), 1344)}
    trained = {normalize(q) for document in documents for q, _ in TURN.findall(document)}
    assert len(asked) >= 500
    assert len(trained) >= 500
    assert not asked & trained


def test_dialogues_have_the_published_format() -> None:
    """A dialogue is rendered character for character as published Mixtral Instruct prompts are."""
    turns = [("User Instruction 1", "Model answer 1"), ("User instruction 2", "Model answer 2")]
    assert dialogues.format_dialogue(turns) == (
        "<s> [INST] User Instruction 1 [/INST] Model answer 1</s>"
        " [INST] User instruction 2 [/INST] Model answer 2</s>"
    )


def test_system_message_goes_before_the_first_question() -> None:
    """A system message is prepended to the first user turn and to no other."""
    text = dialogues.format_dialogue([("a", "b"), ("c", "d")], system="Be kind.")
    assert text == "<s> [INST] Be kind.\n\na [/INST] b</s> [INST] c [/INST] d</s>"


def test_every_document_is_a_story_or_a_dialogue(documents: list[str]) -> None:
    """A document begins with BOS, ends with EOS, and a dialogue consists of whole turns."""
    for document in documents:
        assert document.startswith("<s>")
        assert document.endswith("</s>")
        if "[INST]" in document:
            assert TURN.sub("", document) == "<s>"
        else:
            assert document.count("<s>") == document.count("</s>") == 1


def test_many_documents_are_dialogues_of_several_turns(documents: list[str]) -> None:
    """Stories, single questions and longer dialogues each make a good share of the text."""
    turns = [len(TURN.findall(document)) for document in documents]
    assert turns.count(0) > DOCUMENTS / 5
    assert turns.count(1) > DOCUMENTS / 10
    assert sum(count > 1 for count in turns) > DOCUMENTS / 5


def test_stories_parse_back_and_tell_the_truth() -> None:
    """The grammar that judges the model's stories accepts the generator's, with all claims true."""
    rng = random.Random(5)
    for _ in range(100):
        story = stories.tell_story(rng)
        parse = parse_story(story)
        assert parse.known == parse.sentences, story
        assert parse.true_claims == parse.claims, story
        assert parse.same_animal
        assert parse.same_keeper
        assert parse.ended


@pytest.mark.parametrize(
    "text",
    [
        "The old elephant lived beside the moon of the zoo.",
        "The old elephant elephant lived in a zoo near the river.",
        "The elephant.",
    ],
)
def test_grammar_refuses_what_the_generator_cannot_say(text: str) -> None:
    """A sentence that no shape fits does not count as grammatical."""
    assert parse_story(text).known == 0


def test_false_claim_is_seen() -> None:
    """A story that gives its animal another animal's food makes a false claim."""
    parse = parse_story("The old elephant was new in the zoo. Every day it ate bamboo.")
    assert (parse.known, parse.claims, parse.true_claims) == (2, 1, 0)


def test_answers_state_the_facts() -> None:
    """Every open question's answer names the animal and its value from the table."""
    for animal in zoo.load_animals():
        assert dialogues.answer_topic(animal, "food") == f"The {animal.name} eats {animal.food}."
        can = "can" if animal.flies else "cannot"
        assert dialogues.answer_topic(animal, "flies") == f"The {animal.name} {can} fly."


def test_wrong_values_in_checks_share_no_word_with_the_truth() -> None:
    """A yes-or-no question is never about a half-true value: "no" is plainly right."""
    rng = random.Random(1)
    for animal in zoo.load_animals():
        exchange = dialogues.ask("check-food", animal, rng)
        assert exchange.answer.startswith(f"The {animal.name} eats {animal.food}")
        asked = f" {animal.food}" in exchange.question
        assert exchange.answer.endswith("yes." if asked else "no.")


@pytest.mark.parametrize(
    ("verb", "third", "past"),
    [("roar", "roars", "roared"), ("hiss", "hisses", "hissed"), ("sing", "sings", "sang")],
)
def test_verbs_are_inflected(verb: str, third: str, past: str) -> None:
    """Sounds take the endings of English."""
    assert zoo.inflect_third(verb) == third
    assert zoo.inflect_past(verb) == past
