from datamodules.recipes import shipped_recipes


def test_recipes_come_by_name_in_order():
    found = shipped_recipes("splits")
    assert list(found) == ["edinburgh", "pen"]
    assert found["pen"].name == "pen.yaml"
    assert b"train" in found["pen"].read_bytes()
