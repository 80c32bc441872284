"""The same model behind LitServe: its own batching, one worker process, images in Base64, its usual form."""

from __future__ import annotations

import base64
import sys
from typing import Any

import litserve

from clip_toolkit import Prediction, load


class Classify(litserve.LitAPI):  # type: ignore[misc]  # the package has no types
    """Answer batches of images."""

    def setup(self, device: str) -> None:
        """Open the model in the worker."""
        self.classifier = load(sys.argv[1], device)

    def decode_request(self, request: dict[str, str]) -> bytes:
        """Take the image out of the JSON."""
        return base64.b64decode(request["image"])

    def predict(self, images: list[bytes]) -> list[Prediction]:
        """Classify as the runtime does by itself."""
        return list(self.classifier.predict_many(images))

    def encode_response(self, prediction: Prediction) -> dict[str, Any]:
        """Answer as the other servers do."""
        return {"label": prediction.label, "probability": prediction.probability}


if __name__ == "__main__":
    api = Classify(max_batch_size=8, batch_timeout=0.005, api_path="/v1/predict")
    litserve.LitServer(api, accelerator="cpu").run(port=int(sys.argv[2]), log_level="error", generate_client_file=False)
