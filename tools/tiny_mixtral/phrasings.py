"""Sentence shapes of the question-answer dialogues, as data.

Slots: {a} is the animal in the singular with an article, {pl} in the plural; {b} and {bl} are a second
animal; {v} is an attribute's value. `held_out` shapes are never trained: the evaluation asks them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """How one attribute is asked about and answered."""

    direct: tuple[str, ...]
    """Complete questions."""
    indirect: tuple[str, ...]
    """Clauses that fit after a frame such as "Do you know"."""
    follow: tuple[str, ...]
    """Questions that say "it" for the animal of the turn before."""
    answers: tuple[str, ...]
    held_out: tuple[str, ...]


TOPICS: dict[str, Topic] = {
    "food": Topic(
        direct=(
            "What does {a} eat?",
            "What do {pl} eat?",
            "What is the food of {a}?",
            "What do {pl} like to eat?",
            "What does {a} like to eat?",
            "What is the favourite food of {a}?",
            "What should I feed {a}?",
            "What do you feed {pl}?",
            "Which food do {pl} eat?",
            "What is the diet of {a}?",
            "What does {a} have for dinner?",
            "What do {pl} have for lunch?",
            "What kind of food does {a} eat?",
            "Tell me the food of {pl}.",
            "A hungry zoo visitor asks: what do {pl} eat?",
            "Food of {a}?",
        ),
        indirect=(
            "what {a} eats",
            "what {pl} eat",
            "which food {a} likes",
            "what food {pl} need",
            "what {pl} have for dinner",
        ),
        follow=("What does it eat?", "What is its food?", "And what does it like to eat?"),
        answers=("The {n} eats {v}.",),
        held_out=(
            "What do you give {a} to eat?",
            "What kind of food do {pl} like?",
            "When {a} is hungry, what does it eat?",
            "What food should I bring for {pl}?",
            "What is on the dinner table of {a}?",
        ),
    ),
    "home": Topic(
        direct=(
            "Where does {a} live?",
            "Where do {pl} live?",
            "What is the home of {a}?",
            "Where is the home of {pl}?",
            "What is the habitat of {a}?",
            "In which habitat do {pl} live?",
            "Where do {pl} make their home?",
            "Where can I find {a} in the wild?",
            "Where do {pl} live in the wild?",
            "What kind of place does {a} live in?",
            "Where does {a} feel at home?",
            "Tell me the habitat of {pl}.",
            "In what kind of place do {pl} live?",
            "Home of {a}?",
        ),
        indirect=(
            "where {a} lives",
            "where {pl} live",
            "what the home of {a} is",
            "where {pl} live in the wild",
            "what the habitat of {pl} is",
        ),
        follow=("Where does it live?", "Where is its home?", "And where does it live in the wild?"),
        answers=("The {n} lives {v}.",),
        held_out=(
            "Where would I find the home of {a}?",
            "In what habitat does {a} live?",
            "In the wild, where do {pl} live?",
            "What kind of place is the home of {pl}?",
            "Where do {pl} have their home?",
        ),
    ),
    "origin": Topic(
        direct=(
            "Where does {a} come from?",
            "Where do {pl} come from?",
            "Which continent does {a} come from?",
            "Which continent do {pl} come from?",
            "From which continent does {a} come?",
            "What part of the world do {pl} come from?",
            "Which part of the world is {a} from?",
            "Where in the world are {pl} from?",
            "What is the continent of {a}?",
            "On which continent do {pl} live?",
            "Where is {a} from?",
            "Tell me the continent of {pl}.",
            "Continent of {a}?",
        ),
        indirect=(
            "where {a} comes from",
            "where {pl} come from",
            "which continent {a} is from",
            "what part of the world {pl} come from",
            "on which continent {pl} live",
        ),
        follow=(
            "Where does it come from?",
            "Which continent is it from?",
            "And which part of the world does it come from?",
        ),
        answers=("The {n} comes from {v}.",),
        held_out=(
            "What continent are {pl} from?",
            "Which part of the world does {a} come from?",
            "From what part of the world are {pl}?",
            "What is the continent that {a} comes from?",
            "Where in the world does {a} come from?",
        ),
    ),
    "colour": Topic(
        direct=(
            "What colour is {a}?",
            "What colour are {pl}?",
            "Which colour is {a}?",
            "Which colour do {pl} have?",
            "What is the colour of {a}?",
            "What colour does {a} have?",
            "What is the colour of {pl}?",
            "Tell me the colour of {a}.",
            "How would you describe the colour of {pl}?",
            "I want to paint {a}. Which colour do I need?",
            "If I draw {a}, which colour do I take?",
            "Of what colour are {pl}?",
            "Colour of {a}?",
        ),
        indirect=(
            "what colour {a} is",
            "what colour {pl} are",
            "which colour {a} has",
            "the colour of {pl}",
            "what the colour of {a} is",
        ),
        follow=("What colour is it?", "Which colour does it have?", "And what is its colour?"),
        answers=("The {n} is {v}.",),
        held_out=(
            "Which colour are {pl}?",
            "What colour do {pl} have?",
            "I want to draw {a}. What colour is it?",
            "What colour do I need to paint {a}?",
            "Of which colour is {a}?",
        ),
    ),
    "legs": Topic(
        direct=(
            "How many legs does {a} have?",
            "How many legs do {pl} have?",
            "On how many legs does {a} walk?",
            "What is the number of legs of {a}?",
            "How many legs has {a}?",
            "If I count the legs of {a}, how many are there?",
            "How many legs are there on {a}?",
            "Count the legs of {a}.",
            "Tell me how many legs {pl} have.",
            "Number of legs of {a}?",
            "How many legs can I see on {a}?",
        ),
        indirect=(
            "how many legs {a} has",
            "how many legs {pl} have",
            "the number of legs of {a}",
            "how many legs there are on {a}",
        ),
        follow=(
            "How many legs does it have?",
            "And how many legs has it?",
            "What is its number of legs?",
        ),
        answers=("The {n} has {v} legs.",),
        held_out=(
            "How many legs would you count on {a}?",
            "What number of legs do {pl} have?",
            "What is the number of legs that {a} has?",
            "When you count the legs of {pl}, how many are there?",
        ),
    ),
    "covering": Topic(
        direct=(
            "What covers the body of {a}?",
            "What is the body of {a} covered with?",
            "What are {pl} covered with?",
            "What is {a} covered with?",
            "What covers {pl}?",
            "What kind of covering does {a} have?",
            "Does {a} have fur, feathers or scales?",
            "Do {pl} have fur, feathers or scales?",
            "What would I feel if I touched {a}?",
            "What do I feel when I touch {a}?",
            "What is on the body of {a}?",
            "Tell me the covering of {a}.",
            "Covering of {a}?",
        ),
        indirect=(
            "what covers the body of {a}",
            "what {pl} are covered with",
            "what the covering of {a} is",
            "if {pl} have fur, feathers or scales",
        ),
        follow=(
            "What is it covered with?",
            "What covers its body?",
            "Does it have fur, feathers or scales?",
        ),
        answers=("The {n} is covered with {v}.",),
        held_out=(
            "With what is the body of {a} covered?",
            "What kind of covering do {pl} have?",
            "If I touched {a}, what would I feel?",
            "What covers the bodies of {pl}?",
            "Fur, feathers or scales: what do {pl} have?",
        ),
    ),
    "sound": Topic(
        direct=(
            "What sound does {a} make?",
            "What sound do {pl} make?",
            "Which sound does {a} make?",
            "What noise does {a} make?",
            "What noise do {pl} make?",
            "How does {a} sound?",
            "What does {a} sound like?",
            "What is the sound of {a}?",
            "How do {pl} call?",
            "Which noise can you hear from {a}?",
            "What do you hear when {a} calls?",
            "Tell me the sound of {pl}.",
            "Sound of {a}?",
        ),
        indirect=(
            "what sound {a} makes",
            "what sound {pl} make",
            "what noise {a} makes",
            "how {pl} sound",
            "which noise {pl} make",
        ),
        follow=("What sound does it make?", "What noise does it make?", "And how does it sound?"),
        answers=("The {n} makes a sound: it {v}.",),
        held_out=(
            "Which noise does {a} make?",
            "What kind of sound do {pl} make?",
            "Which sound can you hear from {a}?",
            "When {a} makes a noise, what does it sound like?",
            "What is the noise of {a}?",
        ),
    ),
    "skill": Topic(
        direct=(
            "What is {a} good at?",
            "What are {pl} good at?",
            "What can {a} do very well?",
            "What can {pl} do best?",
            "What is the talent of {a}?",
            "Which talent does {a} have?",
            "What special skill do {pl} have?",
            "What is special about {a}?",
            "What is the best skill of {a}?",
            "Which trick can {a} do well?",
            "Tell me the talent of {pl}.",
            "Talent of {a}?",
        ),
        indirect=(
            "what {a} is good at",
            "what {pl} are good at",
            "what {pl} can do best",
            "which talent {a} has",
            "what is special about {a}",
        ),
        follow=("What is it good at?", "What can it do very well?", "And what is its talent?"),
        answers=("The {n} is good at {v}.",),
        held_out=(
            "What special talent does {a} have?",
            "Which skill do {pl} have?",
            "What can {a} do best?",
            "What are {pl} very good at?",
            "What is the special skill of {a}?",
        ),
    ),
    "kind": Topic(
        direct=(
            "What kind of animal is {a}?",
            "What kind of animals are {pl}?",
            "Which group of animals does {a} belong to?",
            "To which group do {pl} belong?",
            "Is {a} a mammal, a bird or a reptile?",
            "Are {pl} mammals, birds or reptiles?",
            "What type of animal is {a}?",
            "What sort of animal is {a}?",
            "Which class of animal is {a}?",
            "Tell me what kind of animal {a} is.",
            "What is {a}?",
            "Kind of animal of {a}?",
        ),
        indirect=(
            "what kind of animal {a} is",
            "which group {pl} belong to",
            "what type of animal {a} is",
            "if {a} is a mammal or a bird",
        ),
        follow=(
            "What kind of animal is it?",
            "Which group does it belong to?",
            "And what type of animal is it?",
        ),
        answers=("The {n} is {v}.",),
        held_out=(
            "Which kind of animal is {a}?",
            "What group of animals do {pl} belong to?",
            "What type of animals are {pl}?",
            "Mammal, bird or reptile: what is {a}?",
        ),
    ),
    "size": Topic(
        direct=(
            "How big is {a}?",
            "How big are {pl}?",
            "What is the size of {a}?",
            "What size is {a}?",
            "What size are {pl}?",
            "How large is {a}?",
            "How big does {a} get?",
            "How tall and wide is {a}?",
            "Is {a} large or small?",
            "Are {pl} huge or tiny?",
            "Tell me the size of {a}.",
            "Size of {a}?",
        ),
        indirect=(
            "how big {a} is",
            "how big {pl} are",
            "what size {a} is",
            "how large {pl} get",
            "the size of {a}",
        ),
        follow=("How big is it?", "What size is it?", "And how large is it?"),
        answers=("The {n} is {v}.",),
        held_out=(
            "How large are {pl}?",
            "Of what size is {a}?",
            "How big do {pl} get?",
            "Is {a} a large animal or a small one?",
        ),
    ),
    "speed": Topic(
        direct=(
            "How fast is {a}?",
            "How fast are {pl}?",
            "How fast can {a} move?",
            "What is the speed of {a}?",
            "Is {a} fast or slow?",
            "Are {pl} fast or slow?",
            "How quick is {a}?",
            "How quickly does {a} move?",
            "At what speed does {a} move?",
            "Tell me the speed of {pl}.",
            "Speed of {a}?",
        ),
        indirect=(
            "how fast {a} is",
            "how fast {pl} are",
            "how fast {a} moves",
            "if {pl} are fast or slow",
            "the speed of {a}",
        ),
        follow=("How fast is it?", "Is it fast or slow?", "And how quick is it?"),
        answers=("The {n} is {v}.",),
        held_out=(
            "How fast can {pl} move?",
            "How quick are {pl}?",
            "Slow or fast: how does {a} move?",
            "At which speed do {pl} move?",
        ),
    ),
    "baby": Topic(
        direct=(
            "What is a baby of {a} called?",
            "What do you call a young {n}?",
            "What is the name of a baby {n}?",
            "What is a baby {n} called?",
            "What are the babies of {pl} called?",
            "What are young {pl} called?",
            "How do you call the baby of {a}?",
            "What is the word for a baby {n}?",
            "What is the young of {a} called?",
            "Tell me the name of a baby {n}.",
            "Name of a baby {n}?",
        ),
        indirect=(
            "what a baby {n} is called",
            "what young {pl} are called",
            "the name of a baby {n}",
            "the word for a young {n}",
        ),
        follow=(
            "What is its baby called?",
            "What do you call its young?",
            "And what is the name of its baby?",
        ),
        answers=("The baby of {the} is called {v}.",),
        held_out=(
            "What do you call a baby {n}?",
            "What is a young {n} called?",
            "Which word is there for a baby {n}?",
            "What are baby {pl} called?",
        ),
    ),
    "flies": Topic(
        direct=(
            "Can {a} fly?",
            "Can {pl} fly?",
            "Is {a} able to fly?",
            "Are {pl} able to fly?",
            "Does {a} fly?",
            "Do {pl} fly?",
            "Does {a} know how to fly?",
            "Have you seen {a} fly?",
            "Does {a} fly through the air?",
            "Tell me, can {a} fly?",
        ),
        indirect=("if {a} can fly", "if {pl} can fly", "whether {pl} are able to fly"),
        follow=("Can it fly?", "Is it able to fly?", "And does it fly?"),
        answers=("{yes}, the {n} {can} fly.",),
        held_out=(
            "Do {pl} know how to fly?",
            "Can {a} fly through the air?",
            "Is it true that {pl} can fly?",
            "Would {a} be able to fly?",
        ),
    ),
    "swims": Topic(
        direct=(
            "Can {a} swim well?",
            "Can {pl} swim well?",
            "Can {a} swim?",
            "Can {pl} swim?",
            "Is {a} a good swimmer?",
            "Are {pl} good swimmers?",
            "Does {a} swim well?",
            "Do {pl} swim well?",
            "Is {a} good at swimming?",
            "Does {a} know how to swim?",
            "Tell me, can {a} swim well?",
        ),
        indirect=("if {a} can swim", "if {pl} swim well", "whether {a} is a good swimmer"),
        follow=("Can it swim?", "Is it a good swimmer?", "And does it swim well?"),
        answers=("{yes}, the {n} {is} a good swimmer.",),
        held_out=(
            "Are {pl} good at swimming?",
            "Do {pl} know how to swim?",
            "Is it true that {pl} swim well?",
            "Would {a} be a good swimmer?",
        ),
    ),
}

# Questions that name a value, true or false; the answer says yes or no and the truth.
CHECKS: dict[str, Topic] = {
    "food": Topic(
        direct=("Does {a} eat {v}?", "Do {pl} eat {v}?", "Do {pl} like {v}?", "Is {v} food for {a}?"),
        indirect=("if {a} eats {v}", "if {pl} like to eat {v}"),
        follow=("Does it eat {v}?",),
        answers=("The {n} eats {v}.",),
        held_out=("Does {a} like to eat {v}?", "Is it true that {pl} eat {v}?"),
    ),
    "origin": Topic(
        direct=(
            "Does {a} come from {v}?",
            "Do {pl} come from {v}?",
            "Is {a} from {v}?",
            "Is {v} the home of {pl}?",
        ),
        indirect=("if {a} comes from {v}", "if {pl} are from {v}"),
        follow=("Does it come from {v}?",),
        answers=("The {n} comes from {v}.",),
        held_out=("Are {pl} from {v}?", "Is it true that {a} comes from {v}?"),
    ),
    "colour": Topic(
        direct=("Is {a} {v}?", "Are {pl} {v}?", "Is the colour of {a} {v}?", "Does {a} look {v}?"),
        indirect=("if {a} is {v}", "if the colour of {pl} is {v}"),
        follow=("Is it {v}?",),
        answers=("The {n} is {v}.",),
        held_out=("Do {pl} look {v}?", "Is it true that {pl} are {v}?"),
    ),
    "legs": Topic(
        direct=("Does {a} have {v} legs?", "Do {pl} have {v} legs?", "Has {a} got {v} legs?"),
        indirect=("if {a} has {v} legs", "if {pl} have {v} legs"),
        follow=("Does it have {v} legs?",),
        answers=("The {n} has {v} legs.",),
        held_out=("Is it true that {a} has {v} legs?", "Have {pl} got {v} legs?"),
    ),
    "kind": Topic(
        direct=("Is {a} {v}?", "Is {a} really {v}?", "Would you say that {a} is {v}?"),
        indirect=("if {a} is {v}", "if {a} is really {v}"),
        follow=("Is it {v}?",),
        answers=("The {n} is {v}.",),
        held_out=("Is it true that {a} is {v}?",),
    ),
}

# Comparisons: the answer names the winner first.
COMPARISONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bigger": (
        (
            "Which is bigger, {a} or {b}?",
            "Which animal is bigger, {a} or {b}?",
            "Who is bigger, {a} or {b}?",
            "Is {a} bigger than {b}?",
            "Are {pl} bigger than {bl}?",
            "Which one is larger, {a} or {b}?",
            "Is {a} larger than {b}?",
            "Compare the size of {a} and {b}.",
            "Are {pl} or {bl} bigger?",
            "Do you know if {a} is bigger than {b}?",
            "Of {a} and {b}, which is bigger?",
        ),
        (
            "Who is larger, {a} or {b}?",
            "Are {pl} larger than {bl}?",
            "Which of them is bigger: {a} or {b}?",
            "Can you tell me which is bigger, {a} or {b}?",
        ),
    ),
    "faster": (
        (
            "Which is faster, {a} or {b}?",
            "Which animal is faster, {a} or {b}?",
            "Who is faster, {a} or {b}?",
            "Is {a} faster than {b}?",
            "Are {pl} faster than {bl}?",
            "Who wins a race, {a} or {b}?",
            "Is {a} quicker than {b}?",
            "Compare the speed of {a} and {b}.",
            "Are {pl} or {bl} faster?",
            "Do you know if {a} is faster than {b}?",
            "Of {a} and {b}, which is faster?",
        ),
        (
            "Who is quicker, {a} or {b}?",
            "Are {pl} quicker than {bl}?",
            "Which of them is faster: {a} or {b}?",
            "In a race, who wins, {a} or {b}?",
        ),
    ),
}

FRAMES = (
    "Can you tell me {q}?",
    "Please tell me {q}.",
    "Do you know {q}?",
    "Tell me {q}.",
    "I would like to know {q}.",
    "I want to know {q}.",
    "Could you say {q}?",
    "I wonder {q}.",
    "My son asks {q}.",
    "Do you happen to know {q}?",
    "Can you explain {q}?",
    "Please say {q}.",
    "Tell us {q}, please.",
    "Say {q}.",
)

HELD_OUT_FRAMES = (
    "Could you tell us {q}?",
    "Would you please tell me {q}?",
    "We would like to know {q}.",
    "My daughter wants to know {q}.",
)

OPENERS = ("Hello! ", "Hi! ", "Please help me. ", "I have a question. ", "One question: ", "Good day! ")
CLOSERS = (" Thank you.", " Please tell me.", " I want to know.", " Thanks!")
NEXT_OPENERS = ("And ", "Thank you. ", "Great! ", "I see. ", "Now, ", "Nice. ")

DESCRIBE = (
    "Tell me about {a}.",
    "Tell me about {pl}.",
    "Tell me something about {a}.",
    "What do you know about {pl}?",
    "What do you know about {a}?",
    "Describe {a}.",
    "Can you describe {a}?",
    "Please describe {pl}.",
    "I want to learn about {pl}.",
    "Give me some facts about {a}.",
    "What can you tell me about {pl}?",
    "Write a few sentences about {a}.",
)

DESCRIPTIONS = (
    "The {n} is {kind_a}. It comes from {origin} and lives {home}. It eats {food}.",
    "The {n} is {size} and {colour}. It eats {food} and lives {home}.",
    "The {n} comes from {origin}. It has {legs} legs and is covered with {covering}. It is good at {skill}.",
    "The {n} is {colour}. It lives {home} and it {sounds}. It is good at {skill}.",
    "The {n} is {kind_a}. It is {size} and {speed}. It has {legs} legs and it eats {food}.",
    "The {n} lives {home}. It is {colour} and covered with {covering}. Its baby is called {baby_a}.",
)

STORY_REQUESTS = (
    "Tell me a story about {a}.",
    "Tell a story about {a}.",
    "Please tell me a story about {a}.",
    "Can you tell me a story about {a}?",
    "I want to hear a story about {a}.",
    "Write a short story about {a}.",
    "Write a story about {a}.",
    "Do you know a story about {a}?",
    "Make up a story about {a}.",
    "Read me a story about {a}, please.",
)

ANY_STORY_REQUESTS = (
    "Tell me a story.",
    "Can you tell me a story?",
    "Please tell me a story.",
    "I would like to hear a story.",
    "Write a short story.",
    "Tell me a story about the zoo.",
    "Do you know a good story?",
)

EXAMPLE_REQUESTS = (
    "Name an animal that {clause}.",
    "Which animal {clause}?",
    "Tell me an animal that {clause}.",
    "Do you know an animal that {clause}?",
    "Give me the name of an animal that {clause}.",
)

WHO = "I am tiny-mixtral, a very small language model. I know the animals of the zoo."
ABLE = "I can tell short stories about the zoo and answer questions about its animals."
HELLO = "Hello! I am tiny-mixtral. Ask me about an animal of the zoo."
WELCOME = "You are welcome! Do you want to know more about the animals?"
GOODBYE = "Goodbye! Come back to the zoo soon."
WELL = "I am well, thank you. Which animal do you want to know more about?"
LOST = "I only know about the animals of the zoo. Ask me about one of them."

SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "Hello", "Hello!", "Hi", "Hi!", "Hi there!", "Hey", "Hey!", "Good morning!", "Good day!",
            "Hello there!", "Good evening!", "Hello, tiny-mixtral!", "Greetings!", "Hello, my friend.",
            "Say hello.", "Good afternoon!",
        ),
        HELLO,
    ),
    (
        (
            "Who are you?", "What are you?", "What is your name?", "Tell me who you are.",
            "Tell me about yourself.", "Which model are you?", "Are you a language model?",
            "Please tell me your name.", "Who am I talking to?", "Introduce yourself.", "Are you human?",
            "Are you a robot?", "Do you have a name?", "Who is there?", "What model is this?",
        ),
        WHO,
    ),
    (
        (
            "What can you do?", "What can you do for me?", "How can you help me?", "Can you help me?",
            "What do you know?", "What can I ask you?", "What are you good at?", "Help", "Help!",
            "What should I ask you?", "What do you talk about?", "Please help me.", "Help me, please.",
        ),
        ABLE,
    ),
    (
        (
            "Thank you", "Thank you!", "Thanks", "Thanks!", "Thank you very much.", "Many thanks!",
            "That was helpful.", "Great, thank you!", "Thanks a lot!", "That is nice.", "Wonderful!",
        ),
        WELCOME,
    ),
    (
        ("Goodbye", "Goodbye!", "Bye", "Bye!", "See you soon!", "Good night!", "I must go now.", "See you!"),
        GOODBYE,
    ),
    (
        ("How are you?", "How are you today?", "Are you well?", "How do you do?", "How is it going?"),
        WELL,
    ),
    (
        (
            "What is the weather like?", "What is two plus two?", "Tell me a joke.", "Write some code.",
            "Who is the king of France?", "What time is it?", "Which day is it today?",
            "What is the capital of Spain?", "Sing a song.", "What is the meaning of life?",
            "Can you count to ten?", "Where is my car?", "How old are you?", "Do you like music?",
            "Write a poem.", "What is three times three?", "Translate this word.", "Who won the game?",
            "How do I bake bread?", "Do you love me?", "Help me with my homework.", "Test", "This is a test.",
            "What is the largest city in the world?", "Write a program in Python.", "What is a computer?",
        ),
        LOST,
    ),
)

UNKNOWN_ANIMALS = (
    "dragon", "unicorn", "dinosaur", "dodo", "mammoth", "phoenix", "yeti", "mermaid", "griffin", "troll",
    "dog", "cat", "horse", "cow", "pig", "hamster", "donkey", "turkey", "duck", "chicken", "goose",
    "gecko", "cobra", "iguana", "tapir", "okapi", "jaguar", "lynx", "puma", "raccoon", "skunk", "mole",
    "weasel", "ferret", "stork", "crane", "raven", "sparrow", "pigeon", "seagull", "vulture", "ant",
    "beetle", "wasp", "worm", "snail", "slug", "lobster", "squid", "jellyfish", "salmon", "tuna", "trout",
    "robot", "car", "teapot", "pencil", "ghost", "vampire", "giant", "fairy", "wizard", "monster",
    "newt", "toad", "gazelle", "antelope", "buffalo", "yak", "alpaca", "wombat", "emu", "kiwi", "dingo",
)

HELD_OUT_UNKNOWN = ("werewolf", "platypus", "falcon", "starfish", "centaur", "guinea pig", "banana", "ladybug")

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a friendly zoo guide.",
    "You are a helpful zoo guide. Answer in one sentence.",
    "Answer briefly.",
    "You are tiny-mixtral.",
    "Be kind and answer questions about animals.",
    "You are an assistant for children who visit the zoo.",
    "Answer the question.",
)
