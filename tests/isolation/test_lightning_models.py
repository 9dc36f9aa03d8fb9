"""Lightning's modules and wrappers are recorded under the names of the network inside."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft

lightning = pytest.importorskip("lightning")


class Trained(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.model = network

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, index):
        return self(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Weighed(Trained):
    def __init__(self, network):
        super().__init__(network)
        self.loss = nn.MSELoss()


@pytest.fixture
def network(small_network):
    return small_network("fno_vanilla").eval()


def measured(record):
    return record.modules, record.blocks, record.outputs, record.errors


@pytest.mark.parametrize("wrap", ["module", "compiled", "fabric"])
def test_a_lightning_module_is_recorded_like_its_network(wrap, network, images):
    expected = ft.capture(network, images)
    model = Trained(network)
    if wrap == "compiled":
        model = torch.compile(model, backend="eager")
    elif wrap == "fabric":
        model = lightning.Fabric(accelerator="cpu", devices=1).setup_module(network)
    record = ft.capture(model, images)
    assert (measured(record), record.not_fired) == (measured(expected), ())
    architecture = "FnoVanillaGeneratorModule" if wrap == "fabric" else "Trained"
    assert record.summary["architecture"] == architecture


def test_a_network_that_is_not_alone_keeps_its_leading_name(network, images):
    expected = ft.capture(network, images)
    record = ft.capture(Weighed(network), images)
    names = [f"model.{module.name}" for module in expected.modules]
    assert [m.name for m in record.modules if m.name != "model"] == names
    assert [entry["name"] for entry in record.not_fired] == ["loss"]


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
def test_a_capture_in_the_middle_of_a_fit_changes_nothing_of_it(network, images, tmp_path):
    class Captures(lightning.Callback):
        def __init__(self):
            self.names, self.modes = [], []

        def on_train_batch_end(self, trainer, module, *_):
            before = module.training
            self.names.append([m.name for m in ft.capture(module, images).modules])
            self.modes.append((before, module.training))

    def weights(*callbacks):
        module = Trained(network).train()
        module.load_state_dict(start)
        trainer = lightning.Trainer(
            max_steps=3,
            accelerator="cpu",
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=4)
        trainer.fit(module, data)
        return {name: value.clone() for name, value in module.state_dict().items()}

    start = {name: value.clone() for name, value in Trained(network).state_dict().items()}
    expected = [m.name for m in ft.capture(network, images).modules]
    captures = Captures()
    with_captures, without = weights(captures), weights()
    assert captures.names == [expected] * 3
    assert captures.modes == [(True, True)] * 3
    assert all(torch.equal(value, without[name]) for name, value in with_captures.items())
