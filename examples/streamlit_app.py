"""Classify pictures in a Streamlit app: ``streamlit run streamlit_app.py model.onnx``."""

from __future__ import annotations

import sys

import streamlit as st

from clip_toolkit import Classifier, ClipToolkitError, Prediction, decode, load

TOP = 5


@st.cache_resource
def open_model(path: str | None) -> Classifier:
    """Open the model once for all visitors; it may be shared between threads."""
    return load(path)


def show(prediction: Prediction) -> None:
    """Write the decision, which may be a threshold's, and the most probable labels."""
    if prediction.values:
        st.table(prediction.values)
        return
    st.subheader(", ".join(prediction.decisions) or "none of the labels")
    for label, probability in prediction.top(TOP):
        st.progress(probability, text=f"{label}: {probability:.1%}")


classifier = open_model(sys.argv[1] if len(sys.argv) > 1 else None)
st.title("What is in the picture?")
text = st.text_input("Text that goes with each picture") if classifier.spec.text else None
pictures = st.file_uploader("Pictures", accept_multiple_files=True) or []
photo = st.camera_input("Camera") if st.toggle("Use the camera") else None

for picture in [*pictures, *([photo] if photo else [])]:
    content = picture.getvalue()
    try:
        answer = classifier.predict(content, text=text)  # the bytes, so that the decode rule is the toolkit's
        st.image(decode(content), caption=picture.name)
    except ClipToolkitError as error:
        st.error(f"{picture.name}: {str(error).removeprefix('<bytes>: ')}")
    else:
        if answer.tasks:
            st.header(classifier.spec.name)
        show(answer)
        for name, further in answer.tasks.items():  # of a file with several heads
            st.header(name)
            show(further)
