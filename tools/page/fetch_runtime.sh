#!/usr/bin/env bash
# Fetches onnxruntime-web from npm into ecvae_jax/page/static/vendor and writes its checksums.
# usage: tools/page/fetch_runtime.sh [VERSION]     (needs npm)
set -euo pipefail

version=${1:-1.30.0}
root=$(cd "$(dirname "$0")/../.." && pwd)
vendor=$root/ecvae_jax/page/static/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
npm pack --silent "onnxruntime-web@$version" > /dev/null
tar xzf "onnxruntime-web-$version.tgz"
mkdir -p "$vendor"
for name in ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm; do
    cp "package/dist/$name" "$vendor/$name"
done
# The packages of 1.30 ship without their license file; its text is that of the MIT license.
cat > "$vendor/LICENSE" <<'TEXT'
onnxruntime-web, https://github.com/microsoft/onnxruntime

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
TEXT
cd "$vendor"
sha256sum LICENSE ort* > SHA256SUMS
echo "onnxruntime-web $version: $(du -ch ort* | tail -1 | cut -f1) in $vendor"
