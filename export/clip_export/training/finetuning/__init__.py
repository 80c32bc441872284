"""Fine-tune the last blocks of an encoder together with the head, on hidden states that are computed once."""
