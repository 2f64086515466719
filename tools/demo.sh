#!/bin/sh
# The main job as a stranger sees it: launch the model that ships with the package, generate, and
# say what to do next. `make demo` installs first and then calls this.
set -eu
paddock="${BIN:-.venv/bin}/paddock"

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

cat <<END

The model goes on serving. What to do next:
  $paddock run tiny-mixtral                   talk to it
  $paddock list                               what is launched
  $paddock launch --model-name mixtral-v0.1 --model-format ggufv2 --quantization Q4_K_M --dry-run
  $paddock registrations                      what else there is
  $paddock --help                             all commands
  $paddock stop                               end the model, the gateway and Ray
END
