"""BERT as a text tower (Devlin et al. 2018, arXiv:1810.04805): its names and switches, shared by several families."""

from __future__ import annotations

BERT_SWITCHES = {
    "masked": True,
    "pooling": "first",
    "norm_behind": True,
    "embedding_norm": True,
    "final_norm": False,
}
"""Fields of `clip_export.graph.text_transformer.TextConfig`."""

BERT_NAMES = {
    r"^embeddings\.word_embeddings\.": "embeddings.token_embedding.",
    r"^embeddings\.position_embeddings\.": "embeddings.position_embedding.",
    r"^embeddings\.LayerNorm\.": "embeddings.norm.",
    r"^encoder\.layer\.": "encoder.layers.",
    r"\.attention\.self\.query\.": ".self_attn.q_proj.",
    r"\.attention\.self\.key\.": ".self_attn.k_proj.",
    r"\.attention\.self\.value\.": ".self_attn.v_proj.",
    r"\.attention\.output\.dense\.": ".self_attn.out_proj.",
    r"\.attention\.output\.LayerNorm\.": ".layer_norm1.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"\.output\.dense\.": ".mlp.fc2.",
    r"\.output\.LayerNorm\.": ".layer_norm2.",
}
"""BERT's names to those of CLIP's text tower. Attention to an image (BLIP's ``crossattention``) keeps its own."""
