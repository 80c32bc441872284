"""int8 side by side: the same encoder in 8 bits by Optimum, ONNX Runtime, NNCF and us, and what each of them decides.

The encoder has the true shapes of CLIP ViT-B/32, random weights and outlier channels like a trained one's
(`models/outliers.py`); the head tells apart which colour prevails in a drawn picture.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from contenders import Contender, product_shapes
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from clip_export.encoders.image import Encoder
from clip_export.exporting import ExportOptions, export_classifier
from clip_export.features.images import image_features
from clip_export.graph.network import network_graph
from clip_export.heads.files import TrainedHead
from clip_export.heads.mlp import VLMtoMLP
from clip_export.heads.references import DataReference
from clip_export.proof.optimum import export_with_optimum
from clip_export.quantization.evidence.files import Wanted
from clip_export.quantization.evidence.images import Evidence, gather
from clip_export.quantization.quantizing import QuantizationOptions
from clip_export.quantization.targets import find_target
from clip_export.samples.pictures import picture
from clip_export.training.epochs import Examples
from clip_export.training.loop import train_head
from clip_export.training.options import TrainingOptions
from clip_toolkit.images.preprocess import normalise
from encoders import SUBJECTS, save_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from outliers import add_outliers  # beside the package

PYTORCH, OPTIMUM, NNCF = "PyTorch eager, float32", "Optimum int8 (avx512_vnni)", "OpenVINO int8 (NNCF)"
OURS, FLOOR = "**ours int8**", "int8 MatMul floor"
ON_OPENVINO = {
    "image": "ours int8 --ops standard, OpenVINO",
    "pixels": "ours int8 --ops standard --input pixels, OpenVINO",
}
"""By what the file takes: images, as ours does, or what others have made of them."""

LABELS = ("red", "green", "blue")
PICTURES, HELD_OUT = 500, 5  # every so many-th picture judges
OUTLIER, CHANNELS = 200.0, 6


@dataclass(frozen=True)
class Quantized:
    """Everything that is compared.

    Attributes:
        contenders: PyTorch first, the floor last.
        agreement: with float32 on the held-out pictures, by the contender's name.
        pictures: number of those pictures.
        ours: our int8 file.
    """

    contenders: list[Contender]
    agreement: dict[str, float]
    pictures: int
    ours: Path


def quantized(folder: Path) -> Quantized:
    """Make every file and count what it decides."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        add_outliers(save_checkpoint(SUBJECTS["b32"], checkpoint), OUTLIER, CHANNELS)
    encoder = Encoder.from_pretrained(str(checkpoint))
    data = _draw(folder / "pictures")
    evidence = gather(Wanted(LABELS, encoder.preprocessing), remembered=data)
    assert evidence is not None
    head = _head(encoder, evidence, folder / "head.pt")
    tuned = normalise(np.stack([image.pixels for image in evidence.calibration]), encoder.preprocessing)
    judged = normalise(np.stack([image.pixels for image in evidence.evaluation]), encoder.preprocessing)
    files = _files(encoder, head, evidence, tuned, folder)
    exact = _decisions(files[1], judged, head)
    agreement = {entry.name: float((_decisions(entry, judged, head) == exact).mean()) for entry in files[1:-1]}
    return Quantized(files, agreement, len(judged), folder / "int8.onnx")


def _draw(folder: Path) -> DataReference:
    """Pictures by the colour that prevails."""
    if not folder.is_dir():
        for label in LABELS:
            (folder / label).mkdir(parents=True)
        for seed in range(PICTURES):
            image = picture(224, 224, seed)
            label = LABELS[int(np.asarray(image).reshape(-1, 3).mean(0).argmax())]
            image.save(folder / label / f"{seed}.png")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    return DataReference(str(folder), tuple(files[::HELD_OUT]))


def _head(encoder: Encoder, evidence: Evidence, path: Path) -> VLMtoMLP:
    if path.is_file():
        head = VLMtoMLP(encoder.dim, 256, len(LABELS))
        head.load_state_dict(torch.load(path, weights_only=True))
        return head.eval()
    held_out = {image.path for image in evidence.evaluation}
    files = [file for file in sorted(evidence.data.rglob("*.png")) if file not in held_out]
    examples = Examples(
        image_features(encoder, files).values, torch.tensor([LABELS.index(file.parent.name) for file in files])
    )
    head = train_head(examples, examples, len(LABELS), TrainingOptions(epochs=100, learning_rate=1e-3)).head
    torch.save(head.state_dict(), path)
    return head


def _files(
    encoder: Encoder, head: VLMtoMLP, evidence: Evidence, tuned: NDArray[np.float32], folder: Path
) -> list[Contender]:
    trained = TrainedHead(head)

    def ours(name: str, mode: str | None, **options: str) -> Path:
        path = folder / name
        if not path.is_file():
            how = QuantizationOptions(mode, find_target("auto"), evidence, report=_report) if mode else None
            export_classifier(trained, encoder, path, LABELS, ExportOptions(quantization=how, **options))
        return path

    def made(name: str, make: Callable[[Path], None]) -> Path:
        path = folder / name
        if not path.exists():
            make(path)
        return path

    plain = made("optimum/model.onnx", lambda path: _export_optimum(encoder, path))
    pixels = made("pixels.onnx", lambda path: onnx.save(network_graph(encoder, head, "pixels", "standard"), path))
    return [
        Contender(PYTORCH, "torch", Path(encoder.id)),
        Contender("ours, float32", "onnxruntime", ours("float.onnx", None)),
        Contender(
            OPTIMUM,
            "onnxruntime",
            made("optimum8", lambda p: _optimum(plain, p)) / "model_quantized.onnx",
        ),
        Contender(
            "ONNX Runtime static int8", "onnxruntime", made("static.onnx", lambda path: _static(plain, path, tuned))
        ),
        Contender(NNCF, "openvino", made("nncf.xml", lambda path: quantize_with_nncf(pixels, path, tuned))),
        *(
            Contender(name, "openvino", ours(f"standard8-{kind}.onnx", "int8", ops="standard", input=kind))
            for kind, name in ON_OPENVINO.items()
        ),
        Contender(OURS, "onnxruntime", ours("int8.onnx", "int8")),
        Contender("ours int4", "onnxruntime", ours("int4.onnx", "int4")),
        Contender(FLOOR, "onnxruntime", made("floor.onnx", lambda path: onnx.save(_floor(encoder), path))),
    ]


def _report(text: str) -> None:
    print(f"  {text}", flush=True)


def _export_optimum(encoder: Encoder, path: Path) -> None:
    export_with_optimum(encoder.id, None, "clip", path.parent)


def _optimum(plain: Path, folder: Path) -> None:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    quantizer = ORTQuantizer.from_pretrained(plain.parent, file_name=plain.name)
    how = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    quantizer.quantize(save_dir=folder, quantization_config=how)


def _static(plain: Path, path: Path, tuned: NDArray[np.float32]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(tuned[:, None])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.left, None)
            return None if image is None else {"pixel_values": image}

    quantize_static(
        plain, path, Images(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"],
    )  # fmt: skip


_NNCF = """
import sys, numpy, nncf, openvino
source, images, result = sys.argv[1:]
model = openvino.Core().read_model(source)
images = numpy.load(images)
model.reshape({model.inputs[0].any_name: [-1, *images.shape[1:]]})
data = nncf.Dataset([image[None] for image in images])
openvino.save_model(nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images)), result)
"""


def quantize_with_nncf(pixels: Path, path: Path, tuned: NDArray[np.float32]) -> None:
    """Write what NNCF makes of a network that takes ``pixel_values``, tuned on some of those, for OpenVINO."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npy"
        np.save(images, tuned)
        subprocess.run([sys.executable, "-c", _NNCF, pixels, images, path], check=True, capture_output=True)


def _floor(encoder: Encoder) -> onnx.ModelProto:
    """Return the int8 products of the network's shapes, one after the other, by the operator that ours uses."""
    rng = np.random.default_rng(0)
    shapes = product_shapes(encoder)
    rows, columns = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    constants = [
        numpy_helper.from_array(np.array(values, kind), name)
        for name, values, kind in (
            ("axes", [1, 2], np.int64), ("begin", [0, 0], np.int64), ("one", [1, 1], np.int64),
            ("scale", 0.01, np.float32), ("zero", 128, np.uint8),
        )
    ]  # fmt: skip
    nodes = []
    for i, (tokens, inputs, outputs) in enumerate(shapes):
        constants += [
            numpy_helper.from_array(rng.integers(-127, 128, (inputs, outputs), dtype=np.int8), f"w{i}"),
            numpy_helper.from_array(np.full(outputs, 0.01, np.float32), f"s{i}"),
            numpy_helper.from_array(np.array([tokens, inputs], np.int64), f"end{i}"),
        ]
        product = ["x" + str(i), f"w{i}", "scale", f"s{i}", "zero"]
        nodes += [
            helper.make_node("Slice", ["x", "begin", f"end{i}", "axes"], [f"x{i}"]),
            helper.make_node("MatMulIntegerToFloat", product, [f"y{i}"], domain="com.microsoft"),
            helper.make_node("Slice", [f"y{i}", "begin", "one", "axes"], [f"z{i}"]),
        ]
    nodes.append(helper.make_node("Concat", [f"z{i}" for i in range(len(shapes))], ["y"], axis=1))
    source = helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", rows, columns])
    graph = helper.make_graph(nodes, "products", [source], [helper.make_tensor_value_info("y", 1, None)], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _decisions(entry: Contender, judged: NDArray[np.float32], head: VLMtoMLP) -> NDArray[np.int64]:
    """Most probable class of each held-out picture, one picture a run."""
    outputs = np.concatenate(list(_outputs(entry, judged)))
    if outputs.shape[1] != len(LABELS):  # Optimum's files end at the encoder
        with torch.no_grad():
            outputs = head(torch.from_numpy(outputs)).numpy()
    return outputs.argmax(1)


def _outputs(entry: Contender, judged: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    if entry.engine == "openvino":
        import openvino

        compiled = openvino.Core().compile_model(entry.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        takes_bytes = compiled.input(0).element_type == openvino.Type.u8
        for image in judged:
            yield compiled(_bytes(image) if takes_bytes else image[None])["logits"]
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(entry.path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    output = next(item.name for item in session.get_outputs() if item.name in ("logits", "pooler_output"))
    for image in judged:
        yield session.run([output], {name: image[None] if name == "pixel_values" else _bytes(image)})[0]


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the uint8 pixels that were normalised with CLIP's own constants."""
    from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    pixels = values.transpose(1, 2, 0).astype(np.float64) * OPENAI_CLIP_STD + OPENAI_CLIP_MEAN
    return np.rint(pixels * 255).astype(np.uint8)[None]
