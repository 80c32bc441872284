"""The frames of videos as images, through PyAV (FFmpeg): a few a second, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clip_toolkit.errors import ImageError, MissingDependencyError
from clip_toolkit.images.limits import DecodeOptions, check_size
from clip_toolkit.stream.inputs import Input

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,ivf"
"""Demuxers that read one file. Others, such as those of playlists, open what the file names, on the network too."""

_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics, ITU-T H.273, table 3
_BYTES = 28  # a pixel: sixteen frames that H.264 may refer to, and one in RGB
_MISSING_SECONDS = 1.0  # by which the last frame may be before the end: sound is often longer


def import_av() -> Any:
    """PyAV, imported only when it is needed.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("--frames needs PyAV: pip install 'clip-toolkit[video]'") from error
    return av


def frames(name: str, rate: float, options: DecodeOptions) -> Iterator[Input]:
    """Yield a video's first frame and then each that is the first of its ``1 / rate`` seconds, upright, in RGB.

    What is wrong with the video comes behind the frames before it, as an `ImageError` in place of an image.
    """
    av, time = import_av(), 0.0
    try:
        with Path(name).open("rb") as file, av.open(file, options={"format_whitelist": _FORMATS}) as container:
            for frame, time in _sampled(container, rate, options):
                yield Input(name, time=time, image=_upright(frame, container.streams.video[0]))
    except ImageError as error:
        yield Input(name, time=time, image=ImageError(f"{name}: {error}"))
    except (OSError, av.error.FFmpegError) as error:
        reason = f"is damaged behind {time:.2f} s" if time else "is no video of a format that is read"
        if isinstance(error, OSError):
            reason = "cannot be read"
        yield Input(name, time=time, image=ImageError(f"{name}: {reason} ({error.strerror})"))


def _sampled(container: Any, rate: float, options: DecodeOptions) -> Iterator[tuple[Any, float]]:
    """Decode all frames, and yield those that are taken with their seconds from the start."""
    if not container.streams.video:
        raise ImageError("holds no video")
    stream = container.streams.video[0]
    check_size(stream.width, stream.height, _BYTES, options)
    stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(options.max_pixels)}
    time, due = 0.0, 0.0
    for frame in container.decode(stream):
        if frame.pts is None:
            raise ImageError("says no times of its frames. Mend it: ffmpeg -i FILE -c copy NEW.mp4")
        if frame.is_corrupt:
            raise ImageError(f"is damaged behind {time:.2f} s")
        time = float((frame.pts - (stream.start_time or 0)) * stream.time_base)
        if time >= due - 1e-6:
            due = (np.floor(time * rate + 1e-6) + 1) / rate
            yield frame, time
    length = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
    if length - time > _MISSING_SECONDS + 2 / float(stream.average_rate or 1) and not options.allow_truncated:
        raise ImageError(f"is cut short: its frames end at {time:.2f} s of {length:.2f} s")


def _upright(frame: Any, stream: Any) -> NDArray[np.uint8]:
    """uint8 RGB ``[height, width, 3]`` with square pixels, turned as the video says it is to be shown."""
    if frame.color_trc in _HDR:
        raise ImageError(f"is HDR ({_HDR[frame.color_trc]}), whose tones are not mapped. Convert it to SDR first.")
    if any(component.is_alpha for component in frame.format.components):
        raise ImageError("has transparent frames, which are not read. Put it on a background first.")
    matrix = next((item for item in frame.side_data if item.type.name == "DISPLAYMATRIX"), None)
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).astype(float)  # FFmpeg's libavutil/display.h
        if a * d < b * c or frame.rotation % 90:
            raise ImageError("is to be shown mirrored or aslant, which is not done. Turn it: ffmpeg -i FILE NEW.mp4")
    width = round(frame.width * float(stream.sample_aspect_ratio or 1))
    turned = np.rot90(frame.to_ndarray(format="rgb24", width=width), frame.rotation // 90)
    return np.ascontiguousarray(turned, dtype=np.uint8)
