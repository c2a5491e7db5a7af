#!/bin/sh
# Starts the packaged Triton with the arguments of production's, which is newer: without those that
# 2.51 does not know and does not need. Its log begins with what was left out.
set -eu
for argument; do
    shift
    case $argument in
    --allow-client-shm=* | --http-max-input-size=*) echo "not known to Triton 2.51: $argument" >&2 ;;
    *) set -- "$@" "$argument" ;;
    esac
done
# The backend's Python takes the packages of the environment whose `python3` it finds first.
export PATH="/opt/tritonserver/bin:$PATH" LD_LIBRARY_PATH=/opt/tritonserver/libraries
# ONNX Runtime would tell its maker what it serves.
export ORT_DISABLE_TELEMETRY="${ORT_DISABLE_TELEMETRY:-1}"
exec /opt/tritonserver/bin/tritonserver "$@"
