"""`resolve`: what is chosen, what is refused and with which words, and that it is pure."""

import builtins
import dataclasses
import itertools
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from paddock.cli.launch import launch, launch_arguments
from paddock.engines import engine_names
from paddock.engines.base import Detection, Host
from paddock.launcher.planning.capacity import CONTEXTS, SLOTS
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.launcher.planning.resolve import list_offers, resolve, resolve_weights
from paddock.registry.catalog import Catalog
from paddock.registry.errors import (
    BadValue,
    NoEngine,
    NoRoom,
    NotLocked,
    Refused,
    UnknownName,
)
from paddock.registry.launch_fields import fields_by_key
from paddock.registry.lockfile import LockedModel
from paddock.registry.spec import source_key
from paddock.server.routes.xinference_shapes import launch_request

GB = 1_000_000_000
TINY = "weights/tiny-mixtral/ggufv2/tiny-mixtral"
QUANTIZATIONS = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0")
CHECKOUT = {f"{TINY}.{quantization}.gguf": 2_000_000 for quantization in QUANTIZATIONS}
WHEEL = {f"{TINY}.Q4_K_M.gguf": 2_600_000}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


def host(free: float = 64, disk: float = 500, **changes: Any) -> Host:
    """A machine with that many GB free, the llama.cpp engine and the files of a checkout."""
    given: dict[str, Any] = {
        "node": "local",
        "name": "here",
        "cpus": 2,
        "memory_total_bytes": round(2 * free * GB),
        "memory_free_bytes": round(free * GB),
        "disk_free_bytes": round(disk * GB),
        "engines": {name: Detection(version="1") for name in engine_names()},
        "files": CHECKOUT,
    }
    return Host(**{**given, **changes})


def plan(catalog: Catalog, *hosts: Host, **request: Any) -> LaunchPlan:
    request.setdefault("model_name", "mixtral-v0.1")
    return resolve(LaunchRequest.parse(**request), catalog, hosts or [host()])


def typed(command: str) -> LaunchRequest:
    """The request that a command makes."""
    context = launch.make_context("launch", shlex.split(command)[2:])
    values = {name: context.params[name] for name in fields_by_key() if name in context.params}
    return launch_request(launch_arguments(values, context.args))


def test_what_is_asked_for_is_obeyed(catalog: Catalog) -> None:
    """A request that leaves nothing open is carried out to the letter, without reasons."""
    made = plan(
        catalog,
        model_engine="LLAMA.CPP",
        size="46.7",
        format="ggufv2",
        quantization="q5_0",
        context_length=1000,
        engine_options={"n_parallel": "3", "n-threads": "7", "repack": "false", "n_ubatch": "512"},
        model_uid="a/b",
        replicas=2,
    )
    assert (made.engine, made.size, made.quantization) == ("llama.cpp", "46_7", "Q5_0")
    assert (made.context_length, made.slots, made.replicas) == (1000, 3, 2)
    assert made.options["n_threads"] == 7
    assert made.model_id == "a/b"
    assert made.weights.files[0].name == "mixtral-8x7b-v0.1.Q5_0.gguf"
    assert made.reasons == ()


def test_what_the_engine_chooses_is_said_too(catalog: Catalog) -> None:
    """Threads, and whether weights are rearranged, each with the rule that it follows."""
    said = plan(catalog, host(free=64), quantization="Q4_K_M").reasons
    assert "n_threads 1: one fewer than there are cores" in said
    assert "repack true: only where all of them fit" in said
    paged = plan(catalog, host(free=20), quantization="Q4_K_M").reasons
    assert "repack false: only where all of them fit" in paged


def test_the_same_question_gets_the_same_answer_without_a_look(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`resolve` opens no file and no socket, and repeats itself exactly."""
    first = plan(catalog, model_name="tiny-mixtral")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("resolve looked at the world")

    for owner, name in ((builtins, "open"), (socket, "socket"), (Path, "stat"), (Path, "open")):
        monkeypatch.setattr(owner, name, forbidden)
    again = plan(catalog, model_name="tiny-mixtral")
    monkeypatch.undo()
    assert again == first


def test_a_plan_survives_json(catalog: Catalog) -> None:
    """What is stored and sent is the plan, with sums added."""
    made = plan(catalog, model_name="tiny-mixtral", replicas=2)
    data = made.to_json()
    assert data["memory"]["total_bytes"] == made.memory.total_bytes
    assert LaunchPlan.from_json(data) == made


@pytest.mark.parametrize(
    ("free", "quantization"), [(100, "Q4_K_M"), (30, "Q4_K_M"), (24, "Q3_K_M"), (18, "Q2_K")]
)
def test_the_best_that_fits_is_chosen(catalog: Catalog, free: float, quantization: str) -> None:
    """The recommended quantization where it fits, else the largest that does."""
    made = plan(catalog, host(free))
    assert made.quantization == quantization
    assert made.memory.fits
    assert not any("slow" in warning for warning in made.warnings)


def test_where_nothing_fits_the_smallest_is_chosen(catalog: Catalog) -> None:
    """A machine too small for any variant gets the smallest one, the reason, and a warning."""
    made = plan(catalog, host(8))
    assert made.quantization == "Q2_K"
    assert any("none fits" in reason for reason in made.reasons)
    assert made.warnings


def test_every_choice_has_a_reason(catalog: Catalog) -> None:
    """Variant, engine, context, slots and what the engine chooses, where they were left open."""
    reasons = plan(catalog).reasons
    named = ["variant", "engine", "context", "slots", "n_threads", "n_ubatch", "repack"]
    assert [reason.split()[0] for reason in reasons] == named
    assert "recommended by the spec" in reasons[0]


def test_engines_that_were_passed_over_have_their_reason(catalog: Catalog) -> None:
    """Engines without an adapter, or not here, are listed; the one that serves is not."""
    refused = plan(catalog, model_name="seed-oss").refused
    assert "no adapter" in refused["MLX"]
    assert "llama.cpp" not in refused
    others = plan(catalog, host(engines={"llama.cpp": Detection(version="1")})).refused
    assert "does not know it" in others["Transformers"]


def test_engine_serves_the_architectures_that_it_knows(catalog: Catalog) -> None:
    """It is asked for them; one that does not say is not judged by them."""
    knows = Detection("5.0", architectures=("LlamaForCausalLM", "MixtralForCausalLM"))
    here = host(200, engines={"Transformers": knows})
    assert plan(catalog, here, format="pytorch").engine == "Transformers"
    other = host(
        200,
        engines={"Transformers": dataclasses.replace(knows, architectures=knows.architectures[:1])},
    )
    with pytest.raises(NoEngine, match=r"5\.0 does not know the architecture MixtralForCausalLM"):
        plan(catalog, other, format="pytorch")


def test_more_memory_never_gives_less(catalog: Catalog) -> None:
    """Over many sizes of machine context and slots only grow, and what should fit does."""
    grown = (0, 0)
    for free in range(20, 120, 4):
        made = plan(catalog, host(free), format="ggufv2", quantization="Q2_K")
        now = (made.context_length, made.slots)
        assert now >= grown
        assert made.memory.fits
        grown = now
    assert grown == (32768, SLOTS)


def test_large_weights_are_left_in_their_file_with_a_warning(catalog: Catalog) -> None:
    """Q4_K_M on 24 GB is served from mapped pages, slowly, and neither repacked nor refused."""
    made = plan(catalog, host(24), format="ggufv2", quantization="Q4_K_M")
    assert made.memory.paged
    assert made.options["repack"] is False
    assert not made.memory.fits
    assert made.context_length == CONTEXTS[-1]
    assert made.slots == 1
    assert "slow" in made.warnings[0]
    assert "27." in made.warnings[0]


def test_weights_that_fit_are_repacked_and_counted(catalog: Catalog) -> None:
    """llama.cpp copies weights for the CPU: then they must fit, and each replica has its own."""
    made = plan(catalog, host(64), quantization="Q4_K_M", format="ggufv2", replicas=2)
    assert made.options["repack"] is True
    assert not made.memory.paged
    assert made.memory.needed_bytes == 2 * made.memory.total_bytes


def test_weights_that_must_stay_in_memory_are_refused_where_they_do_not_fit(
    catalog: Catalog,
) -> None:
    """Without mapping, or with repacking forced, too large is too large."""
    for options in ({"mmap": "false"}, {"repack": "true"}, {"mlock": "true"}):
        with pytest.raises(NoRoom) as error:
            plan(
                catalog,
                host(24),
                format="ggufv2",
                quantization="Q4_K_M",
                engine_options=options,
            )
        assert "paddock estimate mixtral-v0.1" in str(error.value)


def test_replicas_multiply_what_is_not_shared(catalog: Catalog) -> None:
    """Mapped weights are counted once for all replicas, cache and overhead for each."""
    one = plan(catalog, host(24), format="ggufv2", quantization="Q8_0", context_length=4096)
    two = plan(
        catalog, host(24), format="ggufv2", quantization="Q8_0", context_length=4096, replicas=2
    )
    own = one.memory.cache_bytes + one.memory.overhead_bytes
    assert two.memory.needed_bytes == one.memory.needed_bytes + own


def test_a_context_that_does_not_fit_is_refused_with_one_that_does(catalog: Catalog) -> None:
    """The way out is a number that the planner accepts."""
    asked = {"format": "ggufv2", "quantization": "Q2_K", "engine_options": {"n_parallel": 8}}
    with pytest.raises(NoRoom) as error:
        plan(catalog, host(20), context_length=32768, **asked)
    commands = error.value.commands
    assert commands
    assert all(command in str(error.value) for command in commands)
    for command in commands:
        made = resolve(typed(command), catalog, [host(20)])
        assert made.memory.fits


def test_a_full_disk_is_refused_before_anything_is_fetched(catalog: Catalog) -> None:
    """Weights that must come need room on the disk; weights that are here do not."""
    with pytest.raises(NoRoom, match="of disk"):
        plan(catalog, host(disk=10), format="ggufv2", quantization="Q4_K_M")
    assert plan(catalog, host(disk=0), model_name="tiny-mixtral").weights.here


@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ({"rope_scaling": "yarn", "rope_freq_scale": 0.5}, 4096),
        ({"rope_scaling": "linear", "rope_freq_scale": 0.25}, 8192),
        ({"rope_freq_scale": 0.5}, 4096),
        ({"rope_scaling": "none", "rope_freq_scale": 0.5}, 2048),
        ({"rope_scaling": "yarn"}, 2048),
        ({"rope_freq_scale": 2.0}, 2048),
    ],
)
def test_rope_scaling_extends_the_context(
    catalog: Catalog, options: dict[str, Any], longest: int
) -> None:
    """What the options extend it to can be asked for, and no more."""

    def made(**wish: Any) -> LaunchPlan:
        request = {"model_name": "tiny-mixtral", "format": "ggufv2", "engine_options": options}
        return plan(catalog, **request, **wish)

    assert made(context_length=longest).context_length == longest
    with pytest.raises(BadValue, match="was trained for 2048 at most"):
        made(context_length=longest + 1)
    assert made().context_length <= longest


@pytest.mark.parametrize("name", ["tiny-mixtral\n", " tiny-mixtral", "\ttiny-mixtral\r\n"])
def test_white_space_around_names_is_no_part_of_them(catalog: Catalog, name: str) -> None:
    """The model would have an id by which nobody can end it."""
    made = plan(catalog, model_name=name, format="ggufv2 ", quantization="Q2_K\n")
    assert (made.model_id, made.quantization) == ("tiny-mixtral", "Q2_K")
    assert plan(catalog, model_name=name, model_uid=" a/b\n", format="ggufv2").model_id == "a/b"
    with pytest.raises(BadValue, match="model id"):
        plan(catalog, model_name=name, model_uid="a\nb")


def test_a_quantization_behind_a_colon_is_one() -> None:
    """Of a reference, as other tools write it; one that is asked for otherwise must be the same."""
    request = LaunchRequest.parse(model_name="hf.co/a/b:Q4_K_M")
    assert (request.model_name, request.quantization) == ("hf.co/a/b", "Q4_K_M")
    other = LaunchRequest.parse(model_name="hf:a/b:Q4_K_M", quantization="Q8_0")
    assert (other.model_name, other.quantization) == ("hf:a/b:Q4_K_M", "Q8_0")


def test_n_ctx_and_context_length_are_one_thing(catalog: Catalog) -> None:
    """Either sets the context of a request; both must agree; the model's own is the limit."""
    assert plan(catalog, context_length=512).context_length == 512
    assert plan(catalog, engine_options={"n_ctx": 512}).context_length == 512
    same = plan(catalog, engine_options={"n_ctx": 512}, context_length=512)
    assert same.context_length == 512
    with pytest.raises(BadValue, match="512"):
        plan(catalog, engine_options={"n_ctx": 512}, context_length=1024)
    with pytest.raises(BadValue, match="32768 at most"):
        plan(catalog, context_length=32769)


def test_the_cache_is_reckoned_for_whole_slots(catalog: Catalog) -> None:
    """llama.cpp rounds a slot up to 256 tokens, and the estimate with it."""
    asked = {"format": "ggufv2", "quantization": "Q2_K", "engine_options": {"n_parallel": 2}}
    made = plan(catalog, context_length=300, **asked)
    assert made.memory.cache_bytes == 2 * 512 * 131072
    assert made.memory == plan(catalog, context_length=512, **asked).memory


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"model_name": "mixtrl"}, "or mixtral-v0.1"),
        ({"model_name": "mixtral v0.1"}, "did you mean mixtral-v0.1"),
        ({"format": "gguf"}, "ggufv2"),
        ({"format": "ggufv2", "quantization": "Q4_K_S"}, "Q4_K_M"),
        ({"size": "7"}, "46_7"),
        ({"model_engine": "lama.cpp"}, "llama.cpp"),
        ({"hub": "hugginface"}, "huggingface"),
        ({"hub": "nowhere", "model_engine": "echo"}, "huggingface"),
        ({"node": "ther"}, "here"),
        ({"engine_options": {"n_cxt": 1}}, "n_ctx"),
        ({"engine_options": {"n_gpu_layer": 1}, "model_name": "tiny-mixtral"}, "n_gpu_layers"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(
    catalog: Catalog, request_: dict[str, Any], says: str
) -> None:
    """One line with the value and the names that were probably meant."""
    with pytest.raises(UnknownName) as error:
        plan(catalog, **request_)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_field_of_a_request_is_refused() -> None:
    """A misspelt field never passes for one that was left out."""
    with pytest.raises(UnknownName, match="quantization"):
        LaunchRequest.parse(model_name="m", quantisation="x")


@pytest.mark.parametrize(
    "field",
    [
        {"replicas": 0},
        {"replicas": "x"},
        {"context_length": 0},
        {"size": "big"},
        {"model_uid": "a b"},
        {"model_uid": "../x"},
        {"model_uid": "a//b"},
        {"model_uid": "a/"},
        {"model_uid": "x" * 129},
        {"engine_options": 3},
    ],
)
def test_wrong_values_of_a_request_are_refused(field: dict[str, Any]) -> None:
    """Each field has its grammar."""
    with pytest.raises(BadValue):
        LaunchRequest.parse(model_name="m", **field)


def test_sizes_come_as_text_or_number() -> None:
    """46.7, "46_7" and "46.7B" are one size, whoever sends it."""
    sizes = {LaunchRequest.parse(model_name="m", size=s).size for s in (46.7, "46_7", "46.7B")}
    assert sizes == {"46_7"}


def test_an_engine_that_the_spec_names_but_nobody_adapts_is_told_from_a_misspelt_one(
    catalog: Catalog,
) -> None:
    """MLX is no unknown name, even for a format that another engine serves; with a way out."""
    for format_ in (None, "mlx", "ggufv2"):
        with pytest.raises(NoEngine, match="MLX: this version of Paddock has no adapter") as error:
            plan(catalog, model_name="seed-oss", model_engine="mlx", format=format_)
        assert any("ggufv2" in label for label in error.value.alternatives)


def test_a_format_that_no_engine_serves_names_each_engine_and_the_alternatives(
    catalog: Catalog,
) -> None:
    """pytorch without its engines: every engine with its reason, and what would work."""
    with pytest.raises(NoEngine) as error:
        plan(catalog, model_name="tiny-mixtral", format="pytorch")
    assert set(error.value.refused) == {"Transformers", "vLLM", "SGLang", "llama.cpp"}
    assert error.value.refused["llama.cpp"] == "serves ggufv2, not pytorch"
    assert "tiny-mixtral 0_004 ggufv2 Q4_K_M" in error.value.alternatives


def test_a_quantization_that_a_wheel_lacks_is_refused_with_the_one_that_it_has(
    catalog: Catalog,
) -> None:
    """From a wheel only Q4_K_M is there: the reason says so, and so do the alternatives."""
    with pytest.raises(NoEngine, match="come with a source checkout only") as error:
        plan(catalog, host(files=WHEEL), model_name="tiny-mixtral", quantization="Q2_K")
    assert error.value.alternatives == ("tiny-mixtral 0_004 ggufv2 Q4_K_M",)
    chosen = plan(catalog, host(files=WHEEL), model_name="tiny-mixtral")
    assert chosen.quantization == "Q4_K_M"


def test_an_engine_that_is_not_installed_says_so(catalog: Catalog) -> None:
    """What the node's detection found is the reason, word for word."""
    engines = {**host().engines, "llama.cpp": Detection(missing="no such wheel")}
    with pytest.raises(NoEngine, match=r"llama\.cpp: no such wheel"):
        plan(catalog, host(engines=engines), model_name="tiny-mixtral")


@pytest.mark.parametrize("variant", [{}, {"format": "pytorch"}, {"format": "gptq"}])
def test_echo_serves_any_variant_without_weights(catalog: Catalog, variant: dict[str, Any]) -> None:
    """echo must be named; then it takes whatever the model has, and fetches nothing."""
    made = plan(catalog, host(1, disk=0), model_engine="echo", **variant)
    assert made.engine == "echo"
    assert made.weights.size_bytes == 0
    assert made.weights.hub == "none"
    assert made.memory.cache_bytes == 0


def test_a_hub_is_obeyed_or_refused(catalog: Catalog) -> None:
    """Only a hub that the spec has for the variant will do."""
    made = plan(catalog, format="ggufv2", quantization="Q2_K", hub="HuggingFace")
    assert made.weights.hub == "huggingface"
    with pytest.raises(NoEngine, match="no source on modelscope for ggufv2 Q2_K"):
        plan(catalog, format="ggufv2", quantization="Q2_K", hub="modelscope")


def with_files(*names: str, **sizes: int) -> Host:
    return host(files={**CHECKOUT, **dict.fromkeys(names, 5_000_000), **sizes})


def test_a_file_by_its_path_tells_its_variant(catalog: Catalog) -> None:
    """`--model-path FILE` alone is enough when the name says the quantization."""
    made = plan(catalog, with_files("/w/my.Q6_K.gguf"), model_path="/w/my.Q6_K.gguf")
    assert (made.format, made.quantization) == ("ggufv2", "Q6_K")
    assert made.weights.id == "/w"
    assert [file.name for file in made.weights.files] == ["my.Q6_K.gguf"]
    assert made.weights.size_bytes == 5_000_000
    assert made.weights.here
    assert "the name of the file says" in made.reasons[0]


def test_a_name_that_only_ends_alike_does_not_tell(catalog: Catalog) -> None:
    """IQ4_0 is not Q4_0."""
    with pytest.raises(BadValue, match="do not tell the variant"):
        plan(catalog, with_files("/w/my.IQ4_0.gguf"), model_path="/w/my.IQ4_0.gguf")


def test_a_file_of_any_name_is_served_as_what_the_user_says(catalog: Catalog) -> None:
    """A name that says nothing leaves it to the user."""
    path = "/w/weights.bin"
    made = plan(catalog, with_files(path), model_path=path, format="ggufv2", quantization="Q4_0")
    assert made.weights.files[0].name == "weights.bin"


def test_a_file_whose_name_contradicts_the_request_is_refused(catalog: Catalog) -> None:
    """Q2_K weights are not served under the name of Q4_K_M."""
    path = "/w/my.Q2_K.gguf"
    for where in (path, "/w"):
        with pytest.raises(BadValue, match="says ggufv2 Q2_K"):
            plan(
                catalog,
                with_files(path),
                model_path=where,
                format="ggufv2",
                quantization="Q4_K_M",
            )


def test_a_folder_gives_the_file_that_was_asked_for(catalog: Catalog) -> None:
    """Of several files in a folder the quantization picks one; a slash at its end is no matter."""
    there = with_files("/w/a.Q2_K.gguf", "/w/a.Q4_0.gguf", "/w/readme.md")
    for path in ("/w", "/w/"):
        made = plan(catalog, there, model_path=path, quantization="Q4_0")
        assert [file.name for file in made.weights.files] == ["a.Q4_0.gguf"]
        assert made.weights.id == "/w"


def test_a_folder_with_two_files_that_fit_is_refused(catalog: Catalog) -> None:
    """Two files of one quantization cannot be told apart."""
    there = with_files("/w/a.Q4_0.gguf", "/w/b.Q4_0.gguf")
    with pytest.raises(NoEngine, match=r"2 \.gguf files; name the one to serve"):
        plan(catalog, there, model_path="/w", quantization="Q4_0")


Q4_0 = {"format": "ggufv2", "quantization": "Q4_0"}
PARTS = tuple(f"/w/a-Q4_0-0000{number}-of-00003.gguf" for number in (1, 2, 3))


@pytest.mark.parametrize("path", ["/w", PARTS[0], PARTS[1]])
def test_a_file_in_parts_is_one_file(catalog: Catalog, path: str) -> None:
    """The folder or any part of it names all, in order; their sizes add up."""
    made = plan(catalog, with_files(*PARTS[::-1], "/w/b.Q8_0.gguf"), model_path=path, **Q4_0)
    assert made.quantization == "Q4_0"
    assert [file.name for file in made.weights.files] == [
        name.removeprefix("/w/") for name in PARTS
    ]
    assert made.weights.size_bytes == sum(file.size_bytes or 0 for file in made.weights.files)


def test_a_part_that_is_missing_is_named(catalog: Catalog) -> None:
    """Half of a model is not served."""
    with pytest.raises(NoEngine, match=r"lacks parts of its weights: a-Q4_0-00002-of-00003\.gguf"):
        plan(catalog, with_files(PARTS[0], PARTS[2]), model_path=PARTS[0], **Q4_0)


def test_a_path_where_nothing_is_is_refused(catalog: Catalog) -> None:
    """The value and the machine are named, whatever else was asked for."""
    for more in ({}, {"format": "ggufv2", "quantization": "Q4_0"}):
        with pytest.raises(BadValue, match="'/none': no such file on here"):
            plan(catalog, model_path="/none", **more)
    with pytest.raises(BadValue, match="absolute"):
        plan(catalog, model_path="w/a.Q4_0.gguf")


def test_the_hub_of_the_settings_is_asked_first(catalog: Catalog) -> None:
    """It changes the order where the user names none, and takes no hub away."""
    both = [source.hub for source in plan(catalog, host(400), format="pytorch").weights.sources]
    assert both == ["huggingface", "modelscope"]
    other = plan(catalog, host(400), format="pytorch", first_hub="modelscope").weights.sources
    assert [source.hub for source in other] == both[::-1]
    named = plan(
        catalog, host(400), format="pytorch", first_hub="modelscope", hub="huggingface"
    ).weights
    assert [source.hub for source in named.sources] == ["huggingface"]


def test_a_path_and_a_hub_exclude_each_other(catalog: Catalog) -> None:
    """Of two places for the weights none is dropped in silence."""
    with pytest.raises(BadValue, match="not both"):
        plan(catalog, with_files("/w/a.Q4_0.gguf"), model_path="/w", hub="huggingface")


def test_a_path_on_one_node_is_served_on_that_node(catalog: Catalog) -> None:
    """A file that only another node has takes the model there."""
    other = dataclasses.replace(with_files("/w/a.Q4_0.gguf"), node="n2" * 8, name="there")
    made = plan(catalog, host(), other, model_path="/w/a.Q4_0.gguf")
    assert made.node_name == "there"


def test_a_folder_of_safetensors_is_told_by_its_files(catalog: Catalog) -> None:
    """pytorch and gptq folders are told apart, and served by an engine for them."""
    shard = "/w/model-00001-of-00019.safetensors"
    made = plan(catalog, with_files(shard, "/w/config.json"), model_path="/w")
    assert (made.format, made.quantization, made.engine) == ("pytorch", "none", "Transformers")
    made = plan(catalog, with_files(shard, "/w/quantize_config.json"), model_path="/w")
    assert (made.format, made.quantization, made.engine) == ("gptq", "Int4", "Transformers")


def test_the_node_with_most_room_is_chosen_and_a_named_one_obeyed(catalog: Catalog) -> None:
    """Free memory decides between nodes, unless the user does: by name, address or id."""
    small = host(30, name="small", node="a" * 56, address="10.0.0.1")
    large = host(90, name="large", node="b" * 56, address="10.0.0.2")
    made = plan(catalog, small, large)
    assert made.node_name == "large"
    assert any(reason.startswith("node large") for reason in made.reasons)
    for wanted in ("small", "10.0.0.1", "aaaaaaaa", "a" * 56):
        assert plan(catalog, small, large, node=wanted).node_name == "small"


def test_no_request_crashes_the_planner(catalog: Catalog) -> None:
    """Any mix of wishes over any hosts ends in a plan or in a refusal, and never otherwise."""
    wishes = itertools.product(
        ("mixtral-v0.1", "tiny-mixtral"),
        (None, "pytorch", "gptq", "ggufv2"),
        (None, "Q2_K", "Int4", "none"),
        (None, "llama.cpp", "echo", "vLLM"),
        (None, "huggingface", "local"),
        (1, 9),
    )
    hosts = ([host(0.01)], [host(24), host(300, files={}, node="n2", name="there")])
    planned, said = 0, set[str]()
    for model, format_, quantization, engine, hub, replicas in wishes:
        for there in hosts:
            try:
                made = plan(
                    catalog,
                    *there,
                    model_name=model,
                    format=format_,
                    quantization=quantization,
                    model_engine=engine,
                    hub=hub,
                    replicas=replicas,
                )
            except Refused as refused:
                said.add(str(refused))
                continue
            planned += 1
            assert made.memory.can_run
            assert made.quantization == (quantization or made.quantization)
            fitting = "llama.cpp" if made.format == "ggufv2" else "Transformers"
            assert made.engine == (engine or fitting)
    assert planned > 50
    assert all(text.isprintable() for text in said)


def locked(**changes: Any) -> LockedModel:
    """A lock of mixtral-v0.1 on a hub."""
    return LockedModel.model_validate(
        {
            "model": "mixtral-v0.1",
            "format": "ggufv2",
            "size": "46_7",
            "quantization": "Q4_K_M",
            "hub": "huggingface",
            "id": "somebody/else-GGUF",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "engine": "llama.cpp",
            "engine_version": "1",
            "files": [{"name": "m.gguf", "size_bytes": 1000, "sha256": "a" * 64}],
        }
        | changes
    )


def test_a_lock_is_obeyed_in_all_that_it_names(catalog: Catalog) -> None:
    """Variant, engine, hub, id, commit and files, though the spec has other sources and better."""
    found = plan(catalog, host(), lock=locked(quantization="Q3_K_M"))
    assert (found.format, found.quantization, found.engine) == ("ggufv2", "Q3_K_M", "llama.cpp")
    weights = found.weights
    assert (weights.id, weights.revision) == ("somebody/else-GGUF", locked().commit)
    assert ([file.name for file in weights.files], weights.size_bytes) == (["m.gguf"], 1000)
    assert weights.others == ()
    assert weights.lock == locked(quantization="Q3_K_M")
    assert found.reasons[0] == "locked: 1 file of somebody/else-GGUF at 0123456789ab"
    assert LaunchPlan.from_json(found.to_json()) == found
    _, pulled = resolve_weights(request(lock=locked()), catalog, [host()])
    assert pulled.lock == locked()


def test_locked_files_tell_nodes_apart(catalog: Catalog) -> None:
    """They lie where the spec does not look for any: the node that has them is taken."""
    key = source_key(locked().source)
    nodes = [host(), dataclasses.replace(host(), node="b" * 56, name="other", files={key: 1000})]
    found = resolve(request(lock=locked()), catalog, nodes)
    assert (found.node_name, found.weights.here) == ("other", True)


def request(**given: Any) -> LaunchRequest:
    return LaunchRequest(model_name="mixtral-v0.1", **given)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"quantization": "Q8_0"}, "quantization Q4_K_M, not Q8_0"),
        ({"format": "gptq"}, "format ggufv2, not gptq"),
        ({"size": "7"}, "size 46_7, not 7"),
        ({"hub": "modelscope"}, "hub huggingface, not modelscope"),
        ({"model_engine": "echo"}, "engine llama.cpp, not echo"),
        ({"model_path": "/m.gguf"}, "path huggingface, not /m.gguf"),
        ({"model_name": "tiny-mixtral"}, "model mixtral-v0.1, not tiny-mixtral"),
    ],
)
def test_what_contradicts_the_lock_is_refused(
    catalog: Catalog, asked: dict[str, Any], says: str
) -> None:
    """With both; what says the same is no contradiction."""
    with pytest.raises(NotLocked, match=re.escape(says)):
        plan(catalog, host(), lock=locked(), **asked)
    same = {"quantization": "q4_k_m", "format": "GGUFv2", "size": 46.7, "hub": "auto"}
    assert plan(catalog, host(), lock=locked(), **same).quantization == "Q4_K_M"


def test_the_engine_must_be_of_the_locked_version(catalog: Catalog) -> None:
    """Both are named; of several nodes the one that has it is taken."""
    other = {"llama.cpp": Detection(version="2"), "echo": Detection(version="1")}
    with pytest.raises(NotLocked, match=r"the engine llama\.cpp in 1, not 2"):
        plan(catalog, host(engines=other), lock=locked())
    best = host(node="b", name="other", engines=other, free=128)
    assert plan(catalog, host(), best, lock=locked()).node == host().node
    none = {"llama.cpp": Detection(missing="it is not there"), "echo": Detection(version="1")}
    with pytest.raises(NoEngine, match="it is not there"):
        plan(catalog, host(engines=none), lock=locked())


def test_locked_files_at_a_path_must_be_there_with_their_size(catalog: Catalog) -> None:
    """A folder must hold no others; beside a GGUF file there may be some."""
    files = [{"name": "m.gguf", "size_bytes": 5, "sha256": "a" * 64}]
    lock = locked(hub="path", id="/w", commit=None, files=files)
    there = host(files={"/w/m.gguf": 5, "/w/other.gguf": 7})
    assert plan(catalog, there, lock=lock).weights.lock == lock
    assert request(lock=lock).paths == ("/w",)
    with pytest.raises(NoEngine, match="locked with 5 bytes, and has 6"):
        plan(catalog, host(files={"/w/m.gguf": 6}), lock=lock)
    with pytest.raises(NoEngine, match=r"/w/m.gguf is locked, and not on"):
        plan(catalog, host(files={}), lock=lock)


def test_any_language_model_can_be_had_in_four_bits(catalog: Catalog) -> None:
    """By the engine that can, with what its weights then take; the spec need not say so."""
    asked = {"model_name": "qwen2.5-instruct", "size": "7", "quantization": "4-bit"}
    made = resolve(LaunchRequest.parse(**asked), catalog, [host()])
    assert (made.engine, made.format, made.quantization) == ("Transformers", "pytorch", "4-bit")
    assert 0.25 < made.memory.weights_bytes / made.weights.size_bytes < 0.45
    with pytest.raises(NoEngine, match="no bitsandbytes"):
        resolve(LaunchRequest.parse(**asked, model_engine="vLLM"), catalog, [host()])


def test_offers_are_what_launches_would_take(catalog: Catalog) -> None:
    """Each variant with its engine and its bytes; none where no engine serves it."""
    mixtral = catalog.lookup("mixtral-v0.1")
    offers = list(list_offers(mixtral, host()))
    found = {variant.label: choice.engine.name for variant, choice, _ in offers if choice}
    assert found["mixtral-v0.1 46_7 ggufv2 Q4_K_M"] == "llama.cpp"
    assert found["mixtral-v0.1 46_7 pytorch none"] == "Transformers"
    assert all(choice is None or size > choice.loaded_bytes for _, choice, size in offers)
    assert offers[0][0].quantization == plan(catalog).quantization


def test_an_architecture_that_nobody_states_is_left_to_the_engine(catalog: Catalog) -> None:
    """Of a registration without one; an engine that lists what it knows is no judge of it."""
    spec = catalog.lookup("tiny-mixtral")
    unnamed = spec.architecture.model_copy(update={"name": "unknown"})
    named = catalog.including("own", spec.model_copy(update={"architecture": unnamed}))
    engines = {"llama.cpp": Detection(version="1", architectures=("LlamaForCausalLM",))}
    made = plan(named, host(engines=engines), model_name="own", format="ggufv2")
    assert made.engine == "llama.cpp"
