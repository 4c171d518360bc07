"""Data sources and batches `{"image": uint8 [B, H, W, 3], "label": int32 [B]}`.

`sources` defines a record and holds the data that needs no download; `readers` opens every data
source: image files (`folder`, `huggingface`, `tfds`, `tar`) become pixels in `files` and `images`.
`latents` reads what --mode=latents stored, `latent_stream` orders it as `pipeline` does images.
`image_sequence` is the public face, `rae_dit.open_images`. `transforms` holds the pixel arithmetic;
`pipeline` orders, shuffles, shards and batches; `bad_images` counts what cannot be decoded.
No JAX here, and grain in `pipeline`, `batches` and `workers` only.
"""
