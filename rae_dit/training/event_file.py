"""TensorBoard's event files, written with the package `tensorboard` alone.

CLU's and TensorFlow's writers import tensorflow, which takes five seconds of a start and half a
gigabyte of memory.
"""

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

RGB = 3


class EventFile:
    """A new file of events; each is in the file when its method returns."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory, if needed, and a file that no other process has."""
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        numbers = itertools.count()
        while (path := directory / f"{name}.{next(numbers)}").exists():
            pass
        self._file = path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds scalars of one step, as float32."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Adds images of one step, uint8 [1, H, W, 3]."""
        values = []
        for name, (pixels,) in images.items():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            height, width, _ = pixels.shape
            image = Summary.Image(
                height=height,
                width=width,
                colorspace=RGB,
                encoded_image_string=buffer.getvalue(),
            )
            values.append(Summary.Value(tag=name, image=image))
        self._write(Event(step=step, summary=Summary(value=values)))

    def flush(self) -> None:
        """Hands what is written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()
