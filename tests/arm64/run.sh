#!/usr/bin/env bash
# The runtime on 64-bit Arm, emulated: `make test-arm64`, as root on Debian or Ubuntu with qemu-user-static and debootstrap.
# Packages are unpacked, not installed, and wheels are chosen by platform: nothing runs under emulation but our tests.
set -euo pipefail

bin=$1 work=build/arm64
root=$work/root

if [ ! -e "$root/ready" ]; then
  rm -rf "$root" && mkdir -p "$root"
  debootstrap --arch=arm64 --variant=minbase --include=python3 --download-only bookworm "$work/packages" >"$work/debootstrap.log"
  for package in "$work"/packages/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$root"; done
  mknod -m 666 "$root/dev/null" c 1 3 && mknod -m 444 "$root/dev/urandom" c 1 9
  cp "$(command -v qemu-aarch64-static)" "$root/usr/bin/"
  "$bin/pip" install -q --no-warn-conflicts -c constraints.txt --target "$root/site" --only-binary :all: --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    onnxruntime numpy pillow tokenizers pytest
  touch "$root/ready"
fi

# A head of ten shapes as float32 and int8, and 200 further pictures.
if [ ! -e "$work/head.pt" ]; then
  rm -rf "$work/photos" "$work/pictures"
  "$bin/python" models/draw.py "$work/photos" --per-class 30 --seed 1
  "$bin/python" models/draw.py "$work/pictures" --per-class 20 --seed 2
  "$bin/clip-train" "$work/photos" --encoder models/tiny-clip --out "$work/head.pt"
  "$bin/clip-export" --head "$work/head.pt" -o "$work/float32.onnx"
  "$bin/clip-export" --head "$work/head.pt" -o "$work/int8.onnx" --quantize int8 --target arm64 ||
    echo "int8 is left out: the line above says why"
fi

rm -rf "$root/here" && mkdir -p "$root/here/tests"
cp -r toolkit models pyproject.toml "$root/here/" && cp -r tests/conftest.py tests/toolkit tests/arm64 "$root/here/tests/"
cp -r "$work/pictures" "$work"/*.onnx "$root/here/"

emulated() {
  chroot "$root" /usr/bin/qemu-aarch64-static -E PYTHONPATH=/site:/here/toolkit -E OMP_NUM_THREADS=1 \
    -E ORT_DISABLE_TELEMETRY=1 -E PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$@"
}

for file in "$work"/*.onnx; do
  model=$(basename "$file" .onnx)
  emulated -m clip_toolkit.commands.infer --selftest "/here/$model.onnx"
  emulated /here/tests/arm64/answers.py "/here/$model.onnx" /here/pictures >"$work/$model-arm64.jsonl"
  "$bin/python" tests/arm64/answers.py "$work/$model.onnx" "$work/pictures" >"$work/$model-here.jsonl"
  "$bin/python" tests/arm64/compare.py "$work/$model-here.jsonl" "$work/$model-arm64.jsonl"
done

# Without those that start processes, which the system could run only if it knew how to emulate.
emulated -m pytest -q -p no:cacheprovider -c /here/pyproject.toml --rootdir /here \
  -k "not another_process and not without_tokenizers and not command_line and not threads_share" \
  /here/tests/toolkit/{test_classifier,test_replay,test_several_heads,test_novelty}.py \
  /here/tests/toolkit/images/test_{images,preprocess,decode_rule}.py \
  /here/tests/toolkit/{spec/test_model_file,text/test_text,runtime/test_session}.py
