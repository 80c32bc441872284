"""The service that everybody writes first: a FastAPI endpoint around `Classifier.predict`; no batches, no threads."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from clip_toolkit import load

app = FastAPI()


@app.post("/v1/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Answer one image at a time."""
    prediction = app.state.classifier.predict(await request.body())
    return {"label": prediction.label, "probability": prediction.probability}


if __name__ == "__main__":
    app.state.classifier = load(sys.argv[1], "cpu")
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
