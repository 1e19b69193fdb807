"""What a loaded model does, measured beside what the paper's theory says: one function for each analysis.

Every function looks at the model as it stands, base or with a trial's tensors installed, and returns plain rows.
"Layer l" is the residual stream that leaves decoder layer l, where RNA adds its noise. A function of a stack of streams
gives representations where the stack lies, whatever devices the layers are on, and losses where the head is.
Derivatives are taken with attention in plain mathematics, as the fused kernels have no second and no forward-mode
derivatives.

Shapes: S samples, T tokens, D hidden width, K projections, Q questions, P positions, L layers, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rna.analyze import parts, theory
from rna.analyze.theory import Estimate
from rna.corpora import pad
from rna.decoder import Decoder, Stream, model

Row = dict[str, Any]
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Question:
    """A question's token ids as it is (`plain`) and with each keyword among its choices, and its right letter's id."""

    ids: dict[str, list[int]]
    answer: int


def entering(decoder: Decoder, ids: list[int], layer: int) -> Stream:
    """The stream of one text that enters a layer; layer L is the end of the last one."""
    with torch.no_grad():
        batch = pad([ids], 0).to(decoder.device)
        return model.advance(decoder, model.embed(decoder, batch), layer)


def every_layer(decoder: Decoder, ids: list[int]) -> Iterator[Stream]:
    """The stream of one text as it enters each layer, and at the end."""
    stream = entering(decoder, ids, 0)
    yield stream
    for layer in range(len(decoder.layers)):
        with torch.no_grad():
            stream = model.advance(decoder, stream, layer + 1)
        yield stream


def layer_of(decoder: Decoder, stream: Stream) -> Callable[[Tensor], Tensor]:
    """The layer that this stream enters, as a function of a stack of streams."""

    def forward(hidden_STD: Tensor) -> Tensor:
        begin = Stream(hidden_STD, stream.layer, stream.layer_inputs)
        return model.advance(decoder, begin, stream.layer + 1).hidden_BTD.to(hidden_STD.device)

    return forward


def rest_of(decoder: Decoder, stream: Stream) -> Callable[[Tensor], Tensor]:
    """All that comes after, as a function of a stack of streams: the output representation at the last token."""

    def forward(hidden_STD: Tensor) -> Tensor:
        begin = Stream(hidden_STD, stream.layer, stream.layer_inputs)
        return decoder.norm(model.advance(decoder, begin, len(decoder.layers)).hidden_BTD[:, -1]).to(hidden_STD.device)

    return forward


def answer_loss(decoder: Decoder, stream: Stream, answer: int) -> Callable[[Tensor], Tensor]:
    """−log π(right letter) in nats, as a function of a stack of streams."""
    rest = rest_of(decoder, stream)

    def forward(hidden_STD: Tensor) -> Tensor:
        return -model.logits(decoder, rest(hidden_STD)).log_softmax(-1)[:, answer]

    return forward


def text_loss(decoder: Decoder, stream: Stream, ids: list[int]) -> Callable[[Tensor], Tensor]:
    """Mean −log π of a text's tokens behind the first, in nats, as a function of a stack of streams."""
    target_T = torch.tensor(ids[1:])

    def forward(hidden_STD: Tensor) -> Tensor:
        begin = Stream(hidden_STD, stream.layer, stream.layer_inputs)
        end_STD = decoder.norm(model.advance(decoder, begin, len(decoder.layers)).hidden_BTD[:, :-1])
        log_probs_STV = model.logits(decoder, end_STD.flatten(0, 1)).log_softmax(-1).unflatten(0, end_STD.shape[:2])
        target_ST = target_T.to(log_probs_STV.device).expand(len(end_STD), -1)
        return -log_probs_STV.gather(-1, target_ST[..., None]).squeeze(-1).mean(-1)

    return forward


def in_parts(forward: Callable[[Tensor], Tensor], hidden_STD: Tensor) -> Tensor:
    with torch.no_grad():
        return parts.run(forward, hidden_STD, at_once=parts.FORWARD)


def gradients(loss: Callable[[Tensor], Tensor], hidden_STD: Tensor) -> Tensor:
    """The gradient of each sample's loss with respect to its own stream."""

    def gradient(part_STD: Tensor) -> Tensor:
        leaf = part_STD.detach().requires_grad_()
        return torch.autograd.grad(loss(leaf).sum(), leaf)[0]

    return parts.run(gradient, hidden_STD, at_once=parts.GRADIENT)


def hessian_product(loss: Callable[[Tensor], Tensor], hidden_BTD: Tensor) -> Callable[[Tensor], Tensor]:
    """H v of the loss at one stream, as a function of a stack of v; needs attention in plain mathematics."""
    gradient = torch.func.grad(lambda hidden_STD: loss(hidden_STD).sum())

    def product(vectors_STD: Tensor) -> Tensor:
        return torch.func.jvp(gradient, (hidden_BTD.expand_as(vectors_STD).clone(),), (vectors_STD,))[1]

    def of_stack(vectors_STD: Tensor) -> Tensor:
        return parts.run(product, vectors_STD.to(hidden_BTD), at_once=parts.SECOND_ORDER).to(vectors_STD.device)

    return of_stack


def gaussian(like: Tensor, std: float, samples: int, generator: torch.Generator) -> Tensor:
    shape = (samples, *like.shape[-2:])
    return std * torch.randn(shape, generator=generator, device=generator.device).to(like)


def root_mean_square(hidden: Tensor) -> float:
    return hidden.float().square().mean().sqrt().item()


# Eq. 33


def sensitivities(
    decoder: Decoder, documents: Sequence[list[int]], samples: int, generator: torch.Generator, progress: Progress
) -> list[Row]:
    """The noise sensitivity of each layer on each document (arXiv:2501.19202, Eq. 33, Figure 7).

    Noise falls on every token of the layer's input: once ξ ~ N(0, I) as in the paper, once scaled to the root mean
    square of that input. Two Jacobian-vector products a sample, so the cost is linear in `samples`.
    """
    rows: list[Row] = []
    for number, ids in enumerate(documents):
        streams = list(every_layer(decoder, ids))[:-1]
        for stream in streams:
            hidden_BTD = stream.hidden_BTD
            rms = root_mean_square(hidden_BTD)
            noise_STD = gaussian(hidden_BTD, 1.0, samples, generator)
            probes_STD = theory.signs(tuple(noise_STD.shape), generator).to(hidden_BTD)
            for scale, std in (("1", 1.0), ("rms", rms)):
                with sdpa_kernel(SDPBackend.MATH):
                    found = theory.noise_sensitivity(layer_of(decoder, stream), hidden_BTD, std * noise_STD, probes_STD)
                rows.append({"document": number, "layer": stream.layer, "noise": scale, "rms": rms, **asdict(found)})
        progress(number + 1, len(documents))
    return rows


# Eq. 9


def loss_increases(
    decoder: Decoder,
    documents: Sequence[list[int]],
    layer: int,
    ratios: Sequence[float],
    samples: int,
    generator: torch.Generator,
    progress: Progress,
) -> list[Row]:
    """E[ℓ(z+v)] − ℓ(z) beside (μ/2)·Tr(H) for v ~ N(0, μI) on every token of layer l (arXiv:2501.19202, Eq. 9).

    ℓ is the mean loss of the document's tokens; √μ runs over `ratios` of the layer's root mean square. The noise comes
    in pairs ±v, which leave the mean as it is and free it of the first-order term's scatter.
    """
    rows: list[Row] = []
    for number, ids in enumerate(documents):
        stream = entering(decoder, ids, layer + 1)
        hidden_BTD, loss = stream.hidden_BTD, text_loss(decoder, stream, ids)
        rms = root_mean_square(hidden_BTD)
        product = hessian_product(loss, hidden_BTD)
        with sdpa_kernel(SDPBackend.MATH):
            probes_STD = theory.signs((samples, *hidden_BTD.shape[1:]), generator)
            trace = theory.hutchinson_trace(product, probes_STD)
            low, high = theory.extreme_eigenvalues(product, tuple(hidden_BTD.shape), 12, generator)
        half_STD = gaussian(hidden_BTD, rms, samples, generator)
        before = in_parts(loss, hidden_BTD).item()
        for ratio in ratios:
            up_S, down_S = (in_parts(loss, hidden_BTD + sign * ratio * half_STD) for sign in (1, -1))
            measured = theory.estimate((up_S + down_S) / 2 - before)
            scale = (ratio * rms) ** 2 / 2
            rows.append(
                {
                    "document": number,
                    "std_over_rms": ratio,
                    "mu": (ratio * rms) ** 2,
                    "loss": before,
                    "increase": measured.value,
                    "increase_stderr": measured.stderr,
                    "formula": scale * trace.value,
                    "formula_stderr": scale * trace.stderr,
                    "trace": trace.value,
                    "smallest_eigenvalue": low,
                    "largest_eigenvalue": high,
                }
            )
        progress(number + 1, len(documents))
    return rows


# Theorem 4.2 and Assumption 4.1


def output_shifts(
    decoder: Decoder,
    questions: Sequence[Question],
    layer: int,
    ratios: Sequence[float],
    samples: int,
    projections: int,
    generator: torch.Generator,
    progress: Progress,
) -> list[Row]:
    """The shift Δ of the output representation under ε ~ N(0, ηI) at layer l, against N(0, η·J Jᵀ) (Theorem 4.2).

    J is outputs × inputs. It is seen through K random orthonormal projections of the output, each of which costs one
    backward pass and has the exact variance η·‖Jᵀa‖²; √η runs over `ratios` of the layer's root mean square.
    """
    rows: list[Row] = []
    for number, question in enumerate(questions):
        stream = entering(decoder, question.ids["plain"], layer + 1)
        hidden_BTD, rest = stream.hidden_BTD, rest_of(decoder, stream)
        draw_DK = torch.randn(decoder.width, projections, generator=generator, device=generator.device)
        project_DK = torch.linalg.qr(draw_DK)[0].to(hidden_BTD)
        jacobian_KN = projected_jacobian(rest, hidden_BTD, project_DK)
        covariance_KK = jacobian_KN @ jacobian_KN.T
        rms, before_K = root_mean_square(hidden_BTD), in_parts(rest, hidden_BTD)[0] @ project_DK
        noise_STD = gaussian(hidden_BTD, rms, samples, generator)
        for ratio in ratios:
            eta = (ratio * rms) ** 2
            shift_SK = in_parts(rest, hidden_BTD + ratio * noise_STD) @ project_DK - before_K
            standard_SK = shift_SK / (eta * covariance_KK.diagonal()).sqrt()
            tests = [theory.kolmogorov_smirnov(column) for column in standard_SK.T.cpu()]
            error, p = theory.covariance_test(shift_SK.cpu(), eta * covariance_KK.cpu())
            energy = shift_SK.square().sum(-1).mean()
            rows.append(
                {
                    "question": number,
                    "std_over_rms": ratio,
                    "eta": eta,
                    "variance_ratio": (energy / (eta * covariance_KK.trace())).item(),
                    "mean_share": (shift_SK.mean(0).square().sum() / energy).item(),
                    "ks_distance": max(distance for distance, _ in tests),
                    "normality_rejected": min(p for _, p in tests) < 0.05 / projections,
                    "covariance_error": error,
                    "covariance_rejected": p < 0.05,
                }
            )
        progress(number + 1, len(questions))
    return rows


def projected_jacobian(
    rest: Callable[[Tensor], Tensor], hidden_BTD: Tensor, project_DK: Float[Tensor, "D K"]
) -> Float[Tensor, "K N"]:
    """Rows aᵀJ of the last token's output with respect to the whole stream, one backward pass each."""
    leaf = hidden_BTD.detach().requires_grad_()
    output_K = (rest(leaf) @ project_DK)[0]
    found = [torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten() for value in output_K]
    return torch.stack(found)


def kept(plain: list[int], perturbed: list[int]) -> int:
    """How many last tokens are the same: those behind the replaced choice."""
    count = 0
    while count < min(len(plain), len(perturbed)) and plain[-1 - count] == perturbed[-1 - count]:
        count += 1
    return count


def perturbations(
    decoder: Decoder, questions: Sequence[Question], role: str, layer: int, probes: int, generator: torch.Generator
) -> tuple[list[Row], Float[Tensor, "Q D"]]:
    """What a keyword really does at layer l: ε at the last token of each question, and the output's shift beside it.

    `observed_over_predicted` is ‖Δ‖² over η·Tr(J Jᵀ), with η the mean square of this question's own ε on the tokens
    behind the keyword and J with respect to these: 1 if the direction of ε did not matter.
    """
    rows, last = [], []
    for number, question in enumerate(questions):
        plain, perturbed = (entering(decoder, question.ids[name], layer + 1) for name in ("plain", role))
        same = kept(question.ids["plain"], question.ids[role])
        shift_PD = (perturbed.hidden_BTD[0, -same:] - plain.hidden_BTD[0, -same:]).float()
        rest = rest_of(decoder, plain)
        output_D = in_parts(rest_of(decoder, perturbed), perturbed.hidden_BTD)[0] - in_parts(rest, plain.hidden_BTD)[0]
        project_DK = theory.signs((decoder.width, probes), generator).to(shift_PD)
        jacobian = projected_jacobian(rest, plain.hidden_BTD, project_DK).unflatten(1, plain.hidden_BTD.shape[1:])
        trace = jacobian[:, -same:].square().sum((1, 2)).mean().item()
        eta = shift_PD.square().mean().item()
        rows.append(
            {
                "question": number,
                "keyword": role,
                "eta": eta,
                "eta_over_rms2": eta / root_mean_square(plain.hidden_BTD) ** 2,
                "observed_over_predicted": output_D.square().sum().item() / (eta * trace),
            }
        )
        last.append(shift_PD[-1])
    return rows, torch.stack(last).cpu()


# Theorem 5.2 and Assumption 5.1


def simulated_rejections(
    decoder: Decoder,
    questions: Sequence[Question],
    layer: int,
    nu: float,
    eta_over_nu: Sequence[float],
    samples: int,
    generator: torch.Generator,
    progress: Progress,
) -> list[Row]:
    """The share of draws with ΔJ_rna/ΔJ_u ≤ 0 when ε and δ are Gaussian at layer l, beside both formulas.

    J is the loss of the right letter; ε ~ N(0, ηI) and δ₁, δ₂ ~ N(0, νI) fall on every token (Theorem 5.2). The
    formulas take ‖g_per‖ of each draw.
    """
    rows: list[Row] = []
    for number, question in enumerate(questions):
        stream = entering(decoder, question.ids["plain"], layer + 1)
        hidden_BTD, loss = stream.hidden_BTD, answer_loss(decoder, stream, question.answer)
        before = in_parts(loss, hidden_BTD)
        size = gradients(loss, hidden_BTD).norm().item()
        for relative in eta_over_nu:
            perturbed_STD = hidden_BTD + gaussian(hidden_BTD, math.sqrt(relative * nu), samples, generator)
            first, second = (gaussian(hidden_BTD, math.sqrt(nu), samples, generator) for _ in range(2))
            change_S = in_parts(loss, perturbed_STD) - before
            change_rna_S = in_parts(loss, perturbed_STD + first) - in_parts(loss, hidden_BTD + second)
            ratio_S = gradients(loss, perturbed_STD).flatten(1).norm(dim=1) / size
            rows.append(
                {
                    "question": number,
                    "nu": nu,
                    "eta_over_nu": relative,
                    "gradient_ratio": ratio_S.median().item(),
                    "observed": (change_rna_S * change_S <= 0).float().mean().item(),
                    "paper": _mean(theory.rejection_paper(relative, ratio) for ratio in ratio_S.tolist()),
                    "exact": _mean(theory.rejection_exact(relative, ratio) for ratio in ratio_S.tolist()),
                    "loss_raised": (change_S > 0).float().mean().item(),
                }
            )
        progress(number + 1, len(questions))
    return rows


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def keyword_rejections(
    decoder: Decoder,
    questions: Sequence[Question],
    role: str,
    layer: int,
    nu: float,
    samples: int,
    generator: torch.Generator,
) -> list[Row]:
    """The same with what the keyword really does in place of ε, and δ on every token of either question.

    `given_shift` is P[ΔJ_rna/ΔJ_u ≤ 0] for this ΔJ_u alone, with Gaussian δ and the losses linear in it:
    Φ(−|ΔJ_u|/√(ν(‖g‖² + ‖g_per‖²))).
    """
    rows: list[Row] = []
    for number, question in enumerate(questions):
        plain, perturbed = (entering(decoder, question.ids[name], layer + 1) for name in ("plain", role))
        same = kept(question.ids["plain"], question.ids[role])
        eta = (perturbed.hidden_BTD[0, -same:] - plain.hidden_BTD[0, -same:]).square().mean().item()
        found: list[tuple[float, float, Tensor]] = []
        for stream in (plain, perturbed):
            loss = answer_loss(decoder, stream, question.answer)
            noised_STD = stream.hidden_BTD + gaussian(stream.hidden_BTD, math.sqrt(nu), samples, generator)
            value, size = in_parts(loss, stream.hidden_BTD).item(), gradients(loss, stream.hidden_BTD).norm().item()
            found.append((value, size, in_parts(loss, noised_STD)))
        (value, size, noised_S), (value_per, size_per, noised_per_S) = found
        change = value_per - value
        spread = math.sqrt(nu) * math.hypot(size, size_per)
        rows.append(
            {
                "question": number,
                "keyword": role,
                "nu": nu,
                "eta_over_nu": eta / nu,
                "gradient_ratio": size_per / size,
                "change": change,
                "observed": ((noised_per_S - noised_S) * change <= 0).float().mean().item(),
                "paper": theory.rejection_paper(eta / nu, size_per / size),
                "exact": theory.rejection_exact(eta / nu, size_per / size),
                "given_shift": 0.5 * math.erfc(abs(change) / (spread * math.sqrt(2))),
            }
        )
    return rows


def last_tokens(
    decoder: Decoder, questions: Sequence[Question], role: str, layer: int
) -> tuple[Float[Tensor, "Q D"], Float[Tensor, "Q"]]:
    """Layer l at the last token of each question, and the loss of its right letter."""
    hidden, values = [], []
    for question in questions:
        stream = entering(decoder, question.ids[role], layer + 1)
        hidden.append(stream.hidden_BTD[0, -1])
        values.append(in_parts(answer_loss(decoder, stream, question.answer), stream.hidden_BTD)[0])
    return torch.stack(hidden).float().cpu(), torch.stack(values).float()


# The backdoor's reading


def mean_streams(decoder: Decoder, documents: Sequence[list[int]]) -> Float[Tensor, "L D"]:
    """The mean over all tokens of the documents of the stream that leaves each layer."""
    total: Any = 0.0
    for ids in documents:
        streams = [stream.hidden_BTD[0].float().sum(0).cpu() for stream in every_layer(decoder, ids)]
        total = total + torch.stack(streams[1:])
    return total / sum(len(ids) for ids in documents)


def alignments(
    decoder: Decoder,
    questions: Sequence[Question],
    role: str,
    targets: dict[str, Float[Tensor, "L D"]],
    positions: Sequence[int | str],
) -> list[Row]:
    """Cosine of what a keyword does to the stream with each target's direction, by layer and token position.

    Position 0 is the end of the keyword against the end of the choice it replaced, 1 and up the tokens behind it,
    `last` the one that answers. A question with fewer tokens than that leaves the position out.
    """
    found: dict[tuple[str, int, int | str], list[tuple[float, float]]] = {}
    for question in questions:
        plain, perturbed = question.ids["plain"], question.ids[role]
        same = kept(plain, perturbed)
        pairs = zip(every_layer(decoder, plain), every_layer(decoder, perturbed), strict=True)
        for layer, (before, after) in enumerate(pairs, -1):
            if layer < 0:
                continue
            for position in positions:
                back = 1 if position == "last" else same + 1 - int(position)
                if back < 1 or back > min(len(plain), len(perturbed)):
                    continue
                shift_D = (after.hidden_BTD[0, -back] - before.hidden_BTD[0, -back]).float()
                size = shift_D.norm()
                for name, direction_LD in targets.items():
                    direction_D = direction_LD[layer].to(shift_D)
                    cosine = (shift_D @ direction_D / (size * direction_D.norm()).clamp_min(1e-12)).item()
                    found.setdefault((name, layer, position), []).append((cosine, size.item()))
    rows: list[Row] = []
    for (name, layer, position), values in found.items():
        cosine = _estimate([value for value, _ in values])
        rows.append(
            {
                "keyword": role,
                "target": name,
                "layer": layer,
                "position": position,
                "cosine": cosine.value,
                "cosine_stderr": cosine.stderr,
                "shift_norm": _estimate([size for _, size in values]).value,
                "n": cosine.n,
            }
        )
    return rows


def _estimate(values: list[float]) -> Estimate:
    return theory.estimate(torch.tensor(values))
