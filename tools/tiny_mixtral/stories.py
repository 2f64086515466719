"""Short zoo stories: a grammar of sentence shapes, filled from the facts.

A story has an opening, some true facts, a day, an event of several steps and an ending. Every
sentence shape fills its slots from one cast (animal, friend, keeper, child), so a story stays about
the same animal. `grammar.py` parses stories back with the same shapes.
"""

import random
from dataclasses import dataclass

from .zoo import Animal, add_article, capitalize, inflect_past, load_animals

ADJECTIVES = (
    "old",
    "young",
    "happy",
    "sad",
    "brave",
    "shy",
    "clever",
    "lazy",
    "hungry",
    "gentle",
    "curious",
    "proud",
    "sleepy",
    "kind",
    "quiet",
    "noisy",
    "friendly",
    "lonely",
    "playful",
    "wise",
    "patient",
    "cheerful",
    "calm",
    "grumpy",
    "lucky",
    "busy",
    "polite",
    "silly",
    "stubborn",
    "nervous",
)
WOMEN = ("Anna", "Maria", "Rosa", "Clara", "Emma", "Nina", "Lucy", "Grace")
MEN = ("Tom", "Ben", "Oscar", "Paul", "Peter", "Jack", "Sam", "Henry")
GIRLS = ("Mia", "Lily", "Ella", "Zoe", "Ruby", "Ivy")
BOYS = ("Max", "Noah", "Tim", "Finn", "Hugo", "Luke")
WEATHERS = ("sunny", "rainy", "windy", "foggy", "cold", "warm", "hot", "cloudy", "snowy", "stormy")
TIMES = ("morning", "afternoon", "evening", "day")
SEASONS = ("spring", "summer", "autumn", "winter")
THINGS = ("ball", "hat", "key", "scarf", "book", "shoe", "toy", "umbrella", "basket", "bell")
PLACES = (
    "the big tree",
    "the pond",
    "the gate",
    "the fence",
    "the old wall",
    "the stone bench",
    "the bridge",
    "the tea house",
    "the red barn",
    "the flower bed",
)
FEELINGS = ("happy", "proud", "surprised", "glad", "calm", "cheerful")

OPENINGS = (
    "The {adj} {animal} lived in a zoo near the river.",
    "The {adj} {animal} lived in the zoo of a small town.",
    "The {adj} {animal} lived beside {place} of the zoo.",
    "The {adj} {animal} was the favourite of every visitor.",
    "The {adj} {animal} had lived in the zoo for many years.",
    "The {adj} {animal} was new in the zoo.",
    "The {adj} {animal} woke up early one {weather} {time}.",
    "The {adj} {animal} had a good friend, the keeper {keeper}.",
    "The {adj} {animal} sat beside {place} and waited.",
    "The {adj} {animal} looked at the visitors of the zoo.",
    "The {adj} {animal} had a quiet corner beside {place}.",
    "The {adj} {animal} could not sleep.",
    "The {adj} {animal} did not like {weather} days.",
    "The {adj} {animal} loved the {season}.",
    "Once upon a time there was {an_adj} {animal}.",
    "Once there was {an_adj} {animal} in a zoo near the river.",
    "In a small zoo there lived {an_adj} {animal}.",
    "There was once {an_adj} {animal} with many friends.",
    "One {weather} {time}, the {adj} {animal} woke up early.",
    "One {weather} {time}, the keeper {keeper} visited the {adj} {animal}.",
    "Every {time}, the {adj} {animal} waited beside {place}.",
    "Long ago, {an_adj} {animal} came to the zoo.",
    "This is the story of {an_adj} {animal}.",
    "Everybody in the zoo knew the {adj} {animal}.",
)

FACTS = {
    "food": (
        "It liked to eat {food}.",
        "Every day it ate {food}.",
        "Its favourite food was {food}.",
        "For dinner it always had {food}.",
        "The keeper fed it {food}.",
        "Nothing tasted better to it than {food}.",
    ),
    "home": (
        "In the wild, its family lived {home}.",
        "Its parents had lived {home}.",
        "At night it dreamed of life {home}.",
        "Its home in the zoo looked like life {home}.",
        "It was born {home}.",
    ),
    "origin": (
        "It came from {origin}.",
        "It had come to the zoo from {origin}.",
        "Its family came from {origin}.",
        "A ship had brought it from {origin}.",
        "It often thought of {origin}.",
    ),
    "colour": (
        "It was {colour}.",
        "Its colour was {colour}.",
        "It was {colour}, like its mother.",
        "Visitors saw at once that it was {colour}.",
    ),
    "covering": (
        "It was covered with {covering}.",
        "Its body was covered with {covering}.",
        "Children liked to touch its {covering_bare}.",
        "It took good care of its {covering_bare}.",
    ),
    "legs": (
        "It had {legs} legs.",
        "It had {legs} legs and {an_adj2} smile.",
        "Like every {animal}, it had {legs} legs.",
    ),
    "sound": (
        "When it was happy, it {sounded}.",
        "Sometimes it {sounded}.",
        "It {sounded} whenever a visitor came.",
        "In the morning it {sounded} loudly.",
        "Nobody {sounded} as loudly as the {animal}.",
    ),
    "skill": (
        "It was good at {skill}.",
        "It was very good at {skill}.",
        "It liked {skill} more than anything else.",
        "Its talent was {skill}.",
        "All day long it practised {skill}.",
    ),
    "size": (
        "It was {size}.",
        "It was {a_size} animal.",
        "It was {size}, even for {an_animal}.",
        "For {a_size} animal, it was very {adj2}.",
    ),
    "speed": (
        "It was {speed}.",
        "It was {a_speed} animal.",
        "Everybody knew that it was {speed}.",
    ),
    "kind": (
        "It was {a_kind}.",
        "A sign said that it was {a_kind}.",
        "The children learned that it was {a_kind}.",
    ),
    "flies": ("It could fly.", "It liked to fly over {place}."),
    "swims": ("It was a good swimmer.", "It liked to swim in the pond."),
}

# Facts are told in this order, so that a model which always takes the likeliest sentence gets on.
FACT_ORDER = (
    "kind",
    "origin",
    "home",
    "size",
    "colour",
    "covering",
    "legs",
    "food",
    "sound",
    "skill",
    "speed",
    "flies",
    "swims",
)

DAYS = (
    "One {weather} {time}, something happened.",
    "One {weather} {time}, the zoo was very quiet.",
    "One {weather} {time}, many visitors came.",
    "It was a {weather} {time} in {season}.",
    "It was a {weather} {time} and the zoo was full of people.",
    "Then came a {weather} {time}.",
    "On a {weather} {time}, everything was different.",
    "That {time}, the weather was {weather}.",
    "In {season}, the days were {weather}.",
    "The {season} had just begun.",
    "One day, the keeper {keeper} was late.",
    "The next {time} was {weather}.",
)

ENDINGS = (
    "From that day on, the {animal} was never {adj2} again.",
    "That night, the {animal} slept well.",
    "The {animal} was {feeling} for the rest of the day.",
    "It was a good day for the {adj} {animal}.",
    "{keeper} told the story to all the visitors.",
    "{keeper} smiled and closed the gate.",
    "And so the {adj} {animal} and {keeper} became best friends.",
    "The {animal} closed its eyes and dreamed of {food}.",
    "In the end, everybody was {feeling}.",
    "Since then, {keeper} visits the {animal} every {time}.",
    "The visitors clapped and the {animal} {sounded}.",
    "The zoo was quiet again.",
    "It was the best day of the {season}.",
    "The {animal} ate some {food} and went to sleep.",
    "The {adj} {animal} never forgot that {time}.",
    "And that is the end of the story.",
    "Everybody in the zoo still talks about the {adj} {animal}.",
    "The sun went down and the {animal} went to sleep.",
)


@dataclass(frozen=True)
class Event:
    """A chain of steps, each said in one of several ways; `needs` names a rule in `allow`."""

    steps: tuple[tuple[str, ...], ...]
    needs: str = ""


EVENTS: dict[str, Event] = {
    "lost food": Event(
        (
            (
                "The {food} for the {animal} was gone.",
                "There was no {food} left in the kitchen.",
                "Somebody had taken the {food} of the {animal}.",
            ),
            (
                "The {animal} looked beside {place}, but it found nothing.",
                "The {animal} was very hungry.",
                "The {animal} {sounded} and waited for help.",
                "{keeper} looked everywhere in the zoo.",
            ),
            (
                "Then {keeper} came with a basket of {food}.",
                "At last {keeper} found some {food} behind {place}.",
                "The {friend} had hidden the {food} behind {place}.",
                "A kind visitor brought some {food}.",
            ),
            (
                '"Here is your dinner," said {keeper}.',
                '"Eat slowly, my friend," said {keeper}.',
                "The {animal} ate all of it.",
                "The {animal} shared the {food} with nobody.",
            ),
        )
    ),
    "lost thing": Event(
        (
            (
                "A {child_word} called {child} lost {a_thing} beside {place}.",
                "{child} had lost {a_thing} in the zoo.",
                "{child} dropped {a_thing} over the fence.",
                "The wind blew {a_thing} away from {child}.",
            ),
            (
                "{child} began to cry.",
                '"Where is my {thing}?" asked {child}.',
                "{child} asked {keeper} for help.",
                "Nobody could find the {thing}.",
            ),
            (
                "The {animal} saw the {thing} under {place}.",
                "The {animal} had seen everything.",
                "The {animal} was good at {skill}, and so it found a way.",
                "The {animal} went to {place} and found the {thing}.",
            ),
            (
                "It brought the {thing} back to {child}.",
                "Carefully it gave the {thing} to {keeper}.",
                "It pushed the {thing} through the fence.",
            ),
            (
                '"Thank you, dear {animal}!" said {child}.',
                "{child} laughed and thanked the {animal}.",
                '"What a clever {animal}!" said {keeper}.',
                "{child} gave the {animal} some {food}.",
            ),
        )
    ),
    "storm": Event(
        (
            (
                "A storm came over the zoo.",
                "In the night there was a loud storm.",
                "Black clouds came over the zoo and it began to rain.",
                "It rained for three days.",
            ),
            (
                "The {animal} was afraid of the thunder.",
                "The wind broke a branch of {place_tree}.",
                "Water ran under the door of the {animal}.",
                "The {friend} was afraid and {friend_sounded}.",
            ),
            (
                "{keeper} came with a lamp.",
                "{keeper} ran through the rain to help.",
                "{keeper} sat beside the {animal} all night.",
                "The {animal} and the {friend} sat close together.",
            ),
            (
                '"Do not be afraid," said {keeper}.',
                '"The storm is soon over," said {keeper}.',
                "After an hour, the rain stopped.",
                "In the morning, the sun came out.",
            ),
        )
    ),
    "new friend": Event(
        (
            (
                "A new animal came to the zoo: {a_friend}.",
                "{keeper} brought {a_friend} to the zoo.",
                "{A_friend} moved in beside the {animal}.",
                "The {animal} heard somebody new behind {place}: it was {a_friend}.",
            ),
            (
                "The {friend} was {friend_colour} and it ate {friend_food}.",
                "The {friend} came from {friend_origin}.",
                "The {friend} was {friend_size} and very shy.",
                "The {friend} {friend_sounded}.",
                "The {friend} was good at {friend_skill}.",
            ),
            (
                "At first, the {animal} did not like the {friend}.",
                "The {animal} {sounded} to say hello.",
                "The {animal} looked at the {friend} for a long time.",
                '"Be kind to the {friend}," said {keeper}.',
            ),
            (
                "They played together beside {place}.",
                "The {animal} showed the {friend} the zoo.",
                "The {friend} taught the {animal} a song.",
                "Soon they did everything together.",
            ),
            (
                "The {animal} was not lonely any more.",
                "Now the {animal} had a friend.",
                "The {animal} and the {friend} became good friends.",
            ),
        )
    ),
    "race": Event(
        (
            (
                "The {friend} wanted to run a race with the {animal}.",
                '"Let us see who is faster," said {keeper} to the {animal} and the {friend}.',
                "{child} wanted to know who was faster, the {animal} or the {friend}.",
            ),
            (
                "They started at {place}.",
                "The race began beside {place}.",
                "All the visitors came to watch.",
                "{keeper} counted to three.",
            ),
            (
                "The {friend} was {friend_speed}.",
                "Everybody shouted and clapped.",
                "They raced around the pond.",
            ),
            (
                "The {faster} was faster than the {slower} and won the race.",
                "In the end, the {faster} won, because the {faster} was {faster_speed}.",
                "The {faster} came in first and the {slower} came in last.",
            ),
            (
                '"Well done!" said {keeper} to both of them.',
                "{keeper} gave both of them a prize.",
                "The {slower} was not angry and the {faster} was {feeling}.",
            ),
        ),
        needs="speed",
    ),
    "noise": Event(
        (
            (
                "In the night, there was a strange noise.",
                "{keeper} heard a noise behind {place}.",
                "Somebody made a noise behind {place}.",
            ),
            (
                "{keeper} took a lamp and went to look.",
                "All the animals woke up.",
                '"Who is there?" asked {keeper}.',
                "Nobody knew who it was.",
            ),
            (
                "It was the {animal}, who {sounded} in its sleep.",
                "It was only the {friend}, who {friend_sounded}.",
                "Behind {place}, the {friend} {friend_sounded}.",
            ),
            (
                "{keeper} laughed and went back to bed.",
                '"Now go to sleep, all of you," said {keeper}.',
                "Soon the zoo was quiet again.",
            ),
        )
    ),
    "sick": Event(
        (
            (
                "The {animal} was sick and did not eat its {food}.",
                "The {animal} did not want any {food}.",
                "The {animal} lay beside {place} and did not move.",
                "The {animal} no longer {sounded}.",
            ),
            (
                "{keeper} was worried and called the doctor.",
                '"What is wrong with you?" asked {keeper}.',
                "The doctor looked at the {animal}.",
            ),
            (
                '"It needs rest and fresh {food}," said the doctor.',
                "The doctor gave it some medicine.",
                "{keeper} brought it warm milk.",
                "{keeper} told it stories about {origin}.",
            ),
            (
                "After a week, the {animal} was well again.",
                "The next morning, the {animal} {sounded} again.",
                "Two days later, the {animal} ate all its {food}.",
            ),
        )
    ),
    "baby": Event(
        (
            (
                "In {season}, the {animal} had a baby.",
                "One night, a baby was born.",
                "{keeper} found a baby beside the {animal}.",
            ),
            (
                "It was a tiny {baby}.",
                "The {baby} was very small.",
                'The sign said: "A {baby} is born".',
            ),
            (
                "The {baby} tried to learn {skill}.",
                "The {baby} liked to play beside {place}.",
                "The {baby} could not eat {food} yet.",
                "The {baby} followed its mother everywhere.",
            ),
            (
                "All the children wanted to see the {baby}.",
                "{child} found a name for the {baby}.",
                '"What a lovely {baby}!" said {child}.',
                "The mother {sounded} with joy.",
            ),
        ),
        needs="baby",
    ),
    "open gate": Event(
        (
            (
                "{keeper} forgot to close the gate.",
                "The gate was open.",
                "The wind opened the gate.",
            ),
            (
                "The {animal} went out to see the zoo.",
                "The {animal} left its home and went to {place}.",
                "Nobody saw the {animal} leave.",
            ),
            (
                "It met {a_friend} beside {place}.",
                "It visited the {friend}, who ate {friend_food}.",
                "It saw the {friend} and {sounded}.",
                "It found some {food} beside {place}.",
            ),
            (
                "{keeper} looked for the {animal} everywhere.",
                '"Where is the {animal}?" asked {keeper}.',
                "{child} saw the {animal} and told {keeper}.",
            ),
            (
                "In the evening, the {animal} came home by itself.",
                "{keeper} found it asleep beside {place}.",
                "{keeper} led it home with some {food}.",
            ),
        )
    ),
    "school": Event(
        (
            (
                "A school class came to the zoo.",
                "Twenty children came to see the {animal}.",
                "{child} came to the zoo with the school.",
            ),
            (
                '"What does the {animal} eat?" asked {child}.',
                '"What is its food?" asked {child}.',
            ),
            (
                '"It eats {food}," said {keeper}.',
                '"The {animal} eats {food}," said {keeper}.',
            ),
            (
                '"And where does it come from?" asked {child}.',
                '"Which part of the world is it from?" asked {child}.',
            ),
            (
                '"It comes from {origin}," said {keeper}.',
                '"The {animal} comes from {origin}," said {keeper}.',
            ),
            (
                "{child} wrote everything in a book.",
                "{child} drew a picture of the {animal}.",
                "The children learned many new things.",
            ),
        )
    ),
    "painter": Event(
        (
            (
                "A painter came to paint the {animal}.",
                "{child} wanted to paint the {animal}.",
                "A famous painter sat down beside {place}.",
            ),
            (
                '"I need a {colour} pencil," said {child}.',
                "For the {animal}, {child} used the colour {colour}.",
                "The picture was {colour}, like the {animal}.",
            ),
            (
                "The {animal} sat very still.",
                "The {animal} looked at the picture and {sounded}.",
                "{keeper} looked at the picture for a long time.",
            ),
            (
                '"It is beautiful," said {keeper}.',
                "The picture still hangs beside {place}.",
                "{keeper} bought the picture for the zoo.",
            ),
        ),
        needs="plain colour",
    ),
    "birthday": Event(
        (
            (
                "It was the birthday of the {animal}.",
                "{keeper} had a birthday.",
                "The zoo was a hundred years old.",
            ),
            (
                "{keeper} made a cake of {food}.",
                "{child} brought {a_thing} as a present.",
                "All the animals came to the party.",
                "There was a big party beside {place}.",
            ),
            (
                "The {friend} {friend_sounded} a song.",
                "The {animal} {sounded} with joy.",
                "The {friend} ate {friend_food} and the {animal} ate {food}.",
                "{child} danced around {place}.",
            ),
            (
                '"This is the best party of my life," said {keeper}.',
                "They danced until the evening.",
                "Everybody had a good time.",
            ),
        )
    ),
    "swim": Event(
        (
            (
                "{child} fell into the pond.",
                "The {thing} of {child} fell into the water.",
                "The {friend} fell into the pond.",
            ),
            (
                "The water was deep and cold.",
                '"Help!" shouted {keeper}.',
                "Nobody else could help.",
            ),
            (
                "The {animal} was a good swimmer and jumped in at once.",
                "The {animal} swam across the pond.",
                "Without fear, the {animal} dived into the water.",
            ),
            (
                "Soon everybody was safe and dry.",
                "It brought help just in time.",
                '"You are a hero," said {keeper} to the {animal}.',
            ),
        ),
        needs="swims",
    ),
    "fly": Event(
        (
            (
                "{child} lost a kite in {place_tree}.",
                "The {thing} of {child} was stuck in {place_tree}.",
                "{keeper} lost the key of the gate on the roof.",
            ),
            (
                "It was too high for {keeper}.",
                "No ladder was long enough.",
                '"Who can help me?" asked {keeper}.',
            ),
            (
                "The {animal} could fly, and so it went up at once.",
                "The {animal} flew up and brought it down.",
                "The {animal} flew around {place} and up into the air.",
            ),
            (
                '"You are a hero," said {keeper} to the {animal}.',
                "{keeper} thanked the {animal} with some {food}.",
                "Everybody looked up and clapped.",
            ),
        ),
        needs="flies",
    ),
    "snow": Event(
        (
            (
                "Snow fell on the zoo.",
                "The first snow of the winter came.",
                "In the morning, the whole zoo was white.",
            ),
            (
                "The {animal} had never seen snow before.",
                "The {animal} was cold and missed {origin}.",
                "{child} made a {animal} of snow.",
            ),
            (
                "The {friend} played in the snow.",
                "{keeper} brought a warm blanket.",
                "The pond was covered with ice.",
            ),
            (
                "In the afternoon, the sun came out again.",
                "By the evening, the snow was gone.",
                '"Spring will come soon," said {keeper}.',
            ),
        ),
        needs="snow",
    ),
    "lesson": Event(
        (
            (
                "{keeper} wanted to teach the {animal} a trick.",
                "The {friend} wanted to learn {skill}.",
                '"Can you teach me {skill}?" asked the {friend}.',
            ),
            (
                "They practised beside {place} every {time}.",
                "At first, it did not go well.",
                "It was not easy at all.",
            ),
            (
                "The {animal} was patient and {sounded}.",
                "The {animal} got some {food} after each lesson.",
                "The {friend} was better at {friend_skill}.",
            ),
            (
                "After ten days, they could do it.",
                "At last, it worked.",
                "In the end, {keeper} was {feeling}.",
            ),
        )
    ),
}


def allow(event: Event, animal: Animal, friend: Animal) -> bool:
    """Say whether an event can happen to an animal and its friend."""
    return {
        "": True,
        "speed": animal.speed_rank != friend.speed_rank,
        "plain colour": " " not in animal.colour and animal.colour not in ("orange", "spotted"),
        "baby": animal.kind == "mammal",
        "swims": animal.swims and not friend.swims,
        "flies": animal.flies,
        "snow": animal.origin not in ("the Arctic", "Antarctica"),
    }[event.needs]


def fill_animal(animal: Animal, prefix: str) -> dict[str, str]:
    """Return the slots that tell of one animal; a friend's carry the prefix `friend_`."""
    facts = {
        name: getattr(animal, name)
        for name in [
            "food",
            "home",
            "origin",
            "colour",
            "covering",
            "legs",
            "skill",
            "size",
            "speed",
        ]
    }
    facts["sounded"] = inflect_past(animal.sound)
    return {prefix + name: value for name, value in facts.items()}


def cast_story(
    rng: random.Random, animal: Animal, friend: Animal, snows: bool = False
) -> dict[str, str]:
    """Choose everything that stays the same in one story."""
    girl = rng.random() < 0.5
    adjective, second = rng.sample(ADJECTIVES, 2)
    faster, slower = sorted((animal, friend), key=lambda x: -x.speed_rank)
    thing = rng.choice(THINGS)
    slots = {
        "animal": animal.name,
        "an_animal": add_article(animal.name),
        "friend": friend.name,
        "a_friend": add_article(friend.name),
        "A_friend": capitalize(add_article(friend.name)),
        "adj": adjective,
        "an_adj": add_article(adjective),
        "adj2": second,
        "an_adj2": add_article(second),
        "keeper": rng.choice(WOMEN if rng.random() < 0.5 else MEN),
        "child": rng.choice(GIRLS if girl else BOYS),
        "child_word": "girl" if girl else "boy",
        "thing": thing,
        "a_thing": add_article(thing),
        "place_tree": rng.choice(("the big tree", "the apple tree", "the oak tree")),
        "season": "winter" if snows else rng.choice(SEASONS),
        "weather": rng.choice(("cold", "snowy") if snows else WEATHERS),
        "time": rng.choice(TIMES),
        "baby": animal.baby,
        "covering_bare": animal.covering.removeprefix("a "),
        "a_size": add_article(animal.size),
        "a_speed": add_article(animal.speed),
        "a_kind": add_article(animal.kind),
        "faster": faster.name,
        "slower": slower.name,
        "faster_speed": faster.speed,
    }
    return slots | fill_animal(animal, "") | fill_animal(friend, "friend_")


def say(shape: str, cast: dict[str, str], rng: random.Random) -> str:
    """Fill a shape; place and feeling are chosen anew for every sentence."""
    fresh = {"place": rng.choice(PLACES), "feeling": rng.choice(FEELINGS)}
    return shape.format_map(cast | fresh)


def choose_events(rng: random.Random, animal: Animal, friend: Animal, count: int) -> list[Event]:
    """Choose what happens in a story."""
    return rng.sample([e for e in EVENTS.values() if allow(e, animal, friend)], count)


def plan_shapes(rng: random.Random, animal: Animal, events: list[Event], short: bool) -> list[str]:
    """Choose the sentence shapes of a story, in order."""
    topics = [name for name in FACT_ORDER if name not in ("flies", "swims")]
    topics += ["flies"] * animal.flies + ["swims"] * animal.swims
    facts = rng.sample(topics, rng.randint(1, 2) if short else rng.randint(1, 6))
    facts.sort(key=FACT_ORDER.index)
    shapes = [rng.choice(OPENINGS), *(rng.choice(FACTS[name]) for name in facts)]
    if rng.random() < (0.3 if short else 0.6):
        shapes.append(rng.choice(DAYS))
    shapes += [rng.choice(step) for event in events for step in event.steps]
    return [*shapes, rng.choice(ENDINGS)]


def tell_story(rng: random.Random, animal: Animal | None = None, short: bool = False) -> str:
    """Tell one story, about the given animal or any."""
    animal = animal or rng.choice(load_animals())
    friend = rng.choice([x for x in load_animals() if x != animal])
    events = choose_events(rng, animal, friend, 1 if short or rng.random() < 0.75 else 2)
    cast = cast_story(rng, animal, friend, EVENTS["snow"] in events)
    shapes = plan_shapes(rng, animal, events, short)
    return " ".join(say(shape, cast, rng) for shape in shapes)


def list_shapes() -> list[str]:
    """List every sentence shape that a story can contain."""
    shapes = [*OPENINGS, *DAYS, *ENDINGS]
    shapes += [shape for group in FACTS.values() for shape in group]
    shapes += [s for event in EVENTS.values() for step in event.steps for s in step]
    return shapes
