"""Files of the hub by name."""

from vlmsel_auto.models.hubfiles import HubFile, text_files, weights_file


def test_weights_lie_under_usual_names_or_under_one_of_their_own() -> None:
    usual = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    assert weights_file("a/b/") == HubFile(repository="a/b", names=usual)
    assert weights_file("a/b/c.d.pth") == HubFile(repository="a/b", names=("c.d.safetensors", "c.d.pth"))
    assert weights_file("a/b/c.npz") == HubFile(repository="a/b", names=("c.npz",))


def test_what_transformers_makes_needs_configuration_and_tokenizer() -> None:
    found = text_files({"hf_model_name": "some/text", "hf_tokenizer_name": "some/words"})
    needed = [(each.repository, each.names[0]) for each in found if not each.optional]
    assert needed == [("some/text", "config.json"), ("some/words", "tokenizer.json")]
    assert ("some/words", ("tokenizer_config.json",)) in [(each.repository, each.names) for each in found]
    assert text_files({}) == ()
