"""B0 at 224 px in training and in inference, beside timm on the same card: `make bench-accelerator` prints a table.

Ours runs on the backend that KERAS_BACKEND names, in float32 and in bfloat16, with XLA and, on TensorFlow, without it
too, since JAX would compute op by op. A row `folded` trains as fine-tuning does, with BatchNorm frozen and
folded. timm (not installed with the project) trains in AMP, compiled, channels_last, with AdamW too. Each row has a
process of its own, takes the same host arrays batch by batch, waits for the device after every step, and counts the
best of three rounds once it is compiled. Nothing here passes or fails.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

SIZE, CLASSES, ROUNDS = 224, 120, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="in a round")
    parser.add_argument("--row", nargs=3, metavar=("WHO", "PRECISION", "JIT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        measure(*arguments.row, arguments.batch, arguments.steps)
        return
    rows = [
        (who, precision, jit)
        for who in ("batch norm trained", "folded")
        for precision in ("float32", "mixed_bfloat16")
        for jit in (("xla",) if os.environ.get("KERAS_BACKEND") == "jax" else ("xla", "no xla"))
    ]
    if importlib.util.find_spec("timm"):
        rows += [("timm", precision, "compiled") for precision in ("float32", "mixed_bfloat16")]
    print(f"{'images a second':<50} {'training':>9} {'inference':>9}", flush=True)  # noqa: T201
    for row in rows:
        command = [sys.executable, __file__, f"--batch={arguments.batch}", f"--steps={arguments.steps}", "--row", *row]
        done = subprocess.run(command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True)
        fault = (done.stderr.strip() or "no word").splitlines()[-1]
        print(done.stdout.strip() if done.returncode == 0 else f"{', '.join(row):<50} {fault}", flush=True)  # noqa: T201


def measure(who: str, precision: str, jit: str, batch: int, steps: int) -> None:
    """One row of the table."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)
    labels = np.eye(CLASSES, dtype=np.float32)[generator.integers(0, CLASSES, batch)]
    if who == "timm":
        name, train, infer = timms(precision, images, labels)
    else:
        name, train, infer = ours(who, precision, jit, images, labels)
    speeds = [batch / seconds_of(step, steps) for step in (train, infer)]
    print(f"{f'{name}, {precision}, {jit}':<50} {speeds[0]:>9.1f} {speeds[1]:>9.1f}")  # noqa: T201


def ours(
    who: str, precision: str, jit: str, images: np.ndarray, labels: np.ndarray
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    from efficientnet_finetuning.device import prepare_process
    from efficientnet_finetuning.parameters import DeviceParameters, SettledTrainingParameters

    prepare_process(DeviceParameters())
    import keras

    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import attach_head
    from efficientnet_finetuning.training.step import compile_for, prepare_network

    model = attach_head(build_backbone("EfficientNetB0", SIZE, "none", dtype_policy=precision), CLASSES, 0.2)
    options = {"epochs": 1, "batch_size": len(images), "learning_rate": 1e-4, "freeze_batch_norm": who == "folded"}
    parameters = SettledTrainingParameters.model_validate(options | {"keep": "last"})
    network = prepare_network(model, "EfficientNetB0", parameters)
    compile_for(network, parameters, 1e-4)
    network.jit_compile = model.jit_compile = jit == "xla"
    return (
        f"{keras.backend.backend()}, {who}",
        lambda: network.train_on_batch(images, labels),  # answers with the loss, so it is done
        lambda: model.predict_on_batch(images),
    )


def timms(
    precision: str, images: np.ndarray, labels: np.ndarray
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    import timm
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as TensorFlow and JAX do
    network = timm.create_model("efficientnet_b0", num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    forward = torch.compile(network)
    amp = torch.autocast(device, torch.bfloat16, enabled=precision != "float32")
    # NHWC bytes seen as NCHW are channels_last.
    host, targets = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def logits() -> torch.Tensor:
        return forward(host.to(device).float() / 127.5 - 1)

    def train() -> float:
        network.train()
        optimizer.zero_grad()
        with amp:
            loss = torch.nn.functional.cross_entropy(logits(), targets.to(device))
        loss.backward()
        optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def infer() -> np.ndarray:
        network.eval()
        with amp:
            return logits().float().cpu().numpy()

    return "timm", train, infer


def seconds_of(step: Callable[[], object], steps: int) -> float:
    """Of one step, in the best round."""
    step()  # compiles
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(steps):
            step()
        rounds.append(time.perf_counter() - began)
    return min(rounds) / steps


if __name__ == "__main__":
    main()
