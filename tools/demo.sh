#!/usr/bin/env bash
# The main job as a stranger sees it: install, launch the model that ships with the package,
# generate, and say what to do next. `make demo` calls this.
set -euo pipefail
bin="${BIN:-.venv/bin}"
paddock="$bin/paddock"
make="${MAKE:-make}"
build=""
log=build/web.log

# The dashboard is built beside the install, and rests while the model is launched: on two cores the
# first token came 4 s later beside it, even at the lowest priority.
if sh tools/node.sh; then
  mkdir -p build
  set -m # a process group of its own, which ends as a whole
  nice -n 19 "$make" --no-print-directory web </dev/null >"$log" 2>&1 &
  build=$!
  set +m
elif [ ! -f web/dist/index.html ]; then
  echo "The dashboard is left out: it needs Node 20.19 or newer with npm (https://nodejs.org), then: make web"
fi
# To the whole group, for npm has processes of its own. A build that has ended hears nothing.
tell_build() { [ -z "$build" ] || kill "-$1" -- "-$build" 2>/dev/null || true; }
# One that rests ends when it goes on.
trap 'tell_build TERM; tell_build CONT' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$make" --no-print-directory "${INSTALLED:-.venv/.installed}"
tell_build STOP

echo "== paddock launch --model-name tiny-mixtral --model-format ggufv2 --quantization Q4_K_M"
if "$paddock" list | grep -q '^tiny-mixtral .* ready$'; then
  echo "(it is launched already)"
elif ! "$paddock" launch --model-name tiny-mixtral --model-format ggufv2 --quantization Q4_K_M; then
  # The gateway that this has started brings back what was launched before: then it is on its way.
  seconds=0
  until "$paddock" list | grep -q '^tiny-mixtral .* ready$'; do
    seconds=$((seconds + 1))
    [ "$seconds" -lt 60 ] || exit 1
    sleep 1
  done
  echo "(it was launched before, and is back)"
fi

echo
echo "== paddock generate --model-uid tiny-mixtral --temperature 0 --max-tokens 60 \"The old elephant\""
printf 'The old elephant'
"$paddock" generate --model-uid tiny-mixtral --temperature 0 --max-tokens 60 "The old elephant"
tell_build CONT

if [ -n "$build" ]; then
  if kill -0 "$build" 2>/dev/null; then
    printf '\nThe dashboard is still being built; the model serves meanwhile.\n'
  fi
  if ! wait "$build"; then
    printf '\nThe dashboard was not built; everything else works without it. To try again: make web\n'
    tail -n 20 "$log"
  fi
  build=""
fi

cat <<END

The model goes on serving. What to do next:
  $paddock run tiny-mixtral                   talk to it
  $paddock list                               what is launched
  $paddock launch --model-name mixtral-v0.1 --model-format ggufv2 --quantization Q4_K_M --dry-run
  $paddock registrations                      what else there is
  $paddock --help                             all commands
  $paddock stop                               end the model, the gateway and Ray
END
if [ -f web/dist/index.html ]; then
  printf '  %-42s  see it all in a browser\n' "$("$paddock" dashboard --no-open)"
fi
