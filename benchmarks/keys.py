"""What the simulator clouds and those who call them agree on; imports nothing, so that it weighs nothing."""

TENANT = "123"
REGION = {"qcloud": "ap-guangzhou", "aws": "us-east-1"}
CREDENTIALS = {
    "qcloud": {"secret_id": "AKIDbenchmark", "secret_key": "benchmark-secret-key"},
    "aws": {"access_key_id": "AKIABENCHMARK", "secret_access_key": "benchmark-secret-key"},
}
