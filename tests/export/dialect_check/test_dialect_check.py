"""Graphs that keep their dialect pass; graphs that break a rule are refused by that rule alone."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from breakages import BROKEN, Break, all_dequantised, dequantised, island, spoilt
from dialect_graphs import DIALECTS, dialect_net, feeds, node_of, reroute

from fundus_export.dialect_check import Finding, UntrustedView, check_dialect, raised_layers
from fundus_export.dialect_check.dialects import ALL_RULES, RULES
from fundus_export.dialect_check.traits import TRAITS
from fundus_export.errors import ExportError
from fundus_export.quantise.scheme import DIALECTS as WRITTEN_DIALECTS


def rules_of(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_graph_that_keeps_its_dialect_has_no_finding(dialect: str) -> None:
    assert check_dialect(dialect_net(dialect), dialect, graph="net") == ()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_good_graphs_are_real(dialect: str) -> None:
    """They run, and answer what the FP32 graph answers but for rounding."""
    answers = []
    for name in ("fp32", dialect):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            dialect_net(name).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        answers.append(session.run(["eye_logits"], feeds())[0])
    # ten layers of random weights in 8 bits, with ranges that were guessed
    np.testing.assert_allclose(*answers, atol=0.01 if dialect in ("fp32", "fp16") else 1.0)


@pytest.mark.parametrize("written", DIALECTS)
@pytest.mark.parametrize("named", DIALECTS)
def test_a_graph_passes_for_no_dialect_but_its_own(written: str, named: str) -> None:
    findings = check_dialect(dialect_net(written), named)
    assert (findings == ()) == (written == named)


def test_checking_changes_nothing() -> None:
    model = dialect_net("int8-trt")
    before = model.SerializeToString(deterministic=True)
    check_dialect(model, "int8-trt8")
    assert model.SerializeToString(deterministic=True) == before


def test_an_unknown_dialect_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ExportError, match=r"no dialect 'int4'; there is fp32, fp16, int8-cpu"):
        check_dialect(dialect_net("fp32"), "int4")


def test_the_checker_knows_the_dialects_that_are_written() -> None:
    assert tuple(RULES) == tuple(TRAITS) == WRITTEN_DIALECTS


@pytest.mark.parametrize(
    ("dialect", "break_it", "expected"),
    [pytest.param(d, b, e, id=f"{d}: {w}") for d, w, b, e in BROKEN],
)
def test_a_broken_graph_is_refused_by_the_rule_that_it_breaks(
    dialect: str, break_it: Break, expected: set[str]
) -> None:
    model = dialect_net(dialect)
    break_it(model)
    findings = check_dialect(model, dialect, graph="net")
    assert rules_of(findings) == expected
    assert all(f.graph == "net" and f.node and ";" in f.mend for f in findings)


def test_an_island_without_products_is_allowed() -> None:
    model = dialect_net("fp16")
    island(model, "relu2")
    assert check_dialect(model, "fp16") == ()


def test_a_product_that_the_recipe_keeps_in_fp32_is_allowed() -> None:
    model = dialect_net("fp16")
    island(model, "conv2")
    assert check_dialect(model, "fp16", islands=["conv2"]) == ()
    (finding,) = check_dialect(model, "fp16", islands=["conv3"])
    assert (finding.node, finding.rule) == ("conv2", "type-high")


def test_a_raised_layer_is_no_finding_but_is_listed() -> None:
    model = dialect_net("int8-trt8")
    dequantised(model, "conv2")
    assert check_dialect(model, "int8-trt8") == ()
    assert raised_layers(UntrustedView(model)) == ("conv2",)


PRODUCTS = ("conv1", "conv2", "conv3", "conv4", "down", "conv5", "linear", "expand", "project")


def test_a_graph_whose_products_a_recipe_raised_need_not_be_quantised() -> None:
    model, other = dialect_net("int8-trt8"), dialect_net("int8-trt8")
    all_dequantised(model)
    assert check_dialect(model, "int8-trt8", raised=PRODUCTS, beside=other) == ()
    assert check_dialect(other, "int8-trt8", beside=model) == ()


@pytest.mark.parametrize("case", ["not raised", "others raised", "alone", "neither quantised"])
def test_a_graph_that_lost_its_pairs_without_being_raised_is_found(case: str) -> None:
    model = dialect_net("int8-trt8")
    all_dequantised(model)
    beside = {"alone": None, "neither quantised": model}.get(case, dialect_net("int8-trt8"))
    raised = {"not raised": (), "others raised": ("/fuse",)}.get(case, PRODUCTS)
    (finding,) = check_dialect(model, "int8-trt8", raised=raised, beside=beside)
    assert finding.rule == "qdq-missing"


def test_beside_a_raised_convolution_the_identity_needs_no_pair() -> None:
    model = dialect_net("int8-trt8")
    dequantised(model, "conv3")
    reroute(node_of(model, "add1"), "relu1_out_dq", "relu1_out")
    assert check_dialect(model, "int8-trt8") == ()


def test_with_two_convolutions_either_branch_may_carry_the_pair() -> None:
    model = dialect_net("int8-trt8")
    reroute(node_of(model, "add2"), "down_out_dq", "down_out")
    for node in ("down_out_Q", "down_out_DQ"):
        reroute(node_of(model, node), "down_out", "conv5_out")
    reroute(node_of(model, "add2"), "conv5_out", "down_out_dq")
    assert check_dialect(model, "int8-trt8") == ()


def test_a_finding_names_graph_node_rule_and_mend() -> None:
    model = dialect_net("int8-trt")
    spoilt("relu1_out_zero_point", 3)(model)
    first, second = check_dialect(model, "int8-trt", graph="encoder_int8-trt.onnx")
    assert (first.node, second.node) == ("relu1_out_Q", "relu1_out_DQ")
    assert str(first) == (
        "encoder_int8-trt.onnx: relu1_out_Q: qdq-zero-point: its zero point is 3, expected 0; "
        "quantise symmetrically (ActivationSymmetric, WeightSymmetric)"
    )


def test_a_nameless_node_is_called_by_what_it_makes() -> None:
    model = dialect_net("fp32")
    node = node_of(model, "relu2")
    node.name, node.op_type = "", "Softsign"
    (finding,) = check_dialect(model, "fp32")
    assert finding.node == "Softsign that makes relu2_out"


def test_every_rule_is_broken_by_some_graph() -> None:
    assert {rule.id for rule in ALL_RULES} == set().union(*(e for *_, e in BROKEN))


def test_rules_have_one_id_each_and_say_where_they_come_from() -> None:
    assert len({rule.id for rule in ALL_RULES}) == len(ALL_RULES)
    assert all(rule.demand and rule.source for rule in ALL_RULES)
    used = {(rule.id, d) for d, rules in RULES.items() for rule in rules}
    assert {(rule, dialect) for dialect, _, _, e in BROKEN for rule in e} <= used
