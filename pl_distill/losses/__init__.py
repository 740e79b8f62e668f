"""What a student is trained to agree with its teacher on."""
