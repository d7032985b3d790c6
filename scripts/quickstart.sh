#!/usr/bin/env bash
# From nothing to a trained, measured and exported detector, on images made on the spot.
#
# Everything it makes lies under artifacts/quickstart; run it again and it begins anew there.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh
export PATH=$PWD/.venv/bin:$PATH
here=artifacts/quickstart
mkdir -p $here
cd $here

step() { echo; echo "\$ $*"; "$@"; }
step ddk sample-data data
step ddk make-tfrecords data
# A network without pretrained weights, so that it needs no download; small, so that 288 images suffice; and the images'
# own size, 128 pixels, so that no trace is resized away.
step ddk fit --backbone small-cnn --batch 16 --epochs 15
step ddk evaluate
step ddk predict data/test --overwrite
step ddk predict "$(find data/test/fake -name '*.jpg' | sort | head -n 1)" --output artifacts/one.csv --overwrite
step ddk export

run=$(readlink artifacts/runs/latest)
cat <<END

Done. What lies where:
  images             $here/data
  records            $here/artifacts/records
  trained run        $here/artifacts/runs/$run
  report, metrics    $here/artifacts/runs/$run/evaluation
  scores             $here/artifacts/predictions.csv
  SavedModel         $here/artifacts/export/$run
Next, your own images: .venv/bin/ddk make-tfrecords --help
END
