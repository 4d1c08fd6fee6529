#!/bin/sh
# Makes the recordings beside this script again, from the .txt files: what each one says, in one of two
# synthetic voices. Needs Debian's espeak-ng and sox; the tests and CI use the WAV files as they are.
#
# 8 kHz mono G.711 mu-law, the format of a telephone call (WAV format 7). Level: peak at -3 dB. Silence at
# both ends is cut, and silence inside shortened to 0.18 s, so that no turn detector splits a sentence.
set -eu
cd "$(dirname "$0")"

for text in agent-*.txt caller-*.txt; do
    name="${text%.txt}"
    case "$name" in
        agent-*) voice=en-us+f3 pitch=60 speed=175 ;;
        caller-*) voice=en-gb+m3 pitch=38 speed=165 ;;
    esac
    espeak-ng -v "$voice" -p "$pitch" -s "$speed" -g 0 -f "$text" --stdout |
        sox -V1 -t wav - -t wav -r 8000 -c 1 -b 16 - \
            highpass 200 silence 1 0.02 0.5% reverse silence 1 0.02 0.5% reverse norm -3 |
        sox -V1 -t wav - -t wav -e u-law -b 8 "$name.wav" silence -l 1 0 0.5% -1 0.18 0.5%
done
