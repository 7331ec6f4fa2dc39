//! Every pipeline of the catalog, lowered: counts that follow from the architectures by hand.

#![allow(clippy::unwrap_used)]

mod catalog;

use std::collections::BTreeSet;

use catalog::{Known, flops, plain, stage, task, usual};
use loadline_core::{Cfg, Job, Knobs, OpKind, Request, Size};
use loadline_models::catalog::names;
use loadline_models::pipeline::{Support, WanRecipe, support, tile_overlap, tile_sizes};

const LINEAR: OpKind = OpKind::Linear;
const ATTENTION: OpKind = OpKind::Attention;
const CONV: OpKind = OpKind::Conv;

/// Names and numbers of passes of all stages.
fn passes(job: &Job) -> Vec<(&str, u64)> {
    job.stages.iter().map(|s| (s.name.as_str(), s.pass_count())).collect()
}

/// `peak` holds `tensors` of `one` bytes, and at most a fifth of that besides.
fn about(peak: u64, tensors: u64, one: u64) {
    assert!(peak >= tensors * one && peak < tensors * one * 6 / 5, "{} of {one}", peak as f64 / one as f64);
}

#[test]
fn a_model_lowers_at_its_usual_request_or_says_why_not() {
    for name in names() {
        let known = Known::new(name);
        let request = known.usual();
        let unknown = ["ltx", "wav2vec2"].iter().any(|family| name.starts_with(family));
        assert_eq!(request.is_none(), unknown, "{name}");
        let asked = request.unwrap_or_else(|| Known::new("flux.1-dev").usual().unwrap());
        match known.job(&asked, &plain()) {
            Ok(_) => assert!(!unknown, "{name}"),
            Err(error) => {
                let text = error.to_string();
                assert!(unknown && text.contains(name) && text.contains("HunyuanVideoPipeline"), "{text}");
            }
        }
        assert_eq!(matches!(support(&known.model), Support::WeightsOnly(_)), unknown, "{name}");
        assert_eq!(tile_sizes(&known.model).is_empty(), unknown, "{name}");
    }
}

/// What the tables say of a model is what its recipe says.
#[test]
fn a_wan_recipe_knows_whether_it_runs() {
    for name in names().filter(|n| n.starts_with("wan")) {
        let known = Known::new(name);
        let recipe = known.with(|source| WanRecipe::new(source, &known.usual().unwrap(), &plain(), None)).unwrap();
        let runs = recipe.runs();
        assert_eq!(runs.is_ok(), support(&known.model) == Support::Runs, "{name}");
        if let Err(error) = runs {
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("`plan` works"), "{text}");
        }
    }
}

#[test]
fn text_to_video_runs() {
    let check = |name: &str, runs: bool| {
        assert_eq!(support(&Known::new(name).model) == Support::Runs, runs, "{name}");
    };
    check("wan2.1-t2v-1.3b", true);
    check("wan2.2-ti2v-5b", true);
    check("wan2.2-t2v-a14b", false);
    check("wan2.1-i2v-14b-480p", false);
    check("wan2.1-vace-1.3b", false);
    check("cogvideox-2b", false);
    check("flux.1-dev", false);
    check("hunyuanvideo", false);
}

#[test]
fn passes_follow_from_steps_branches_and_chunks() {
    let check = |name: &str, expected: &[(&str, u64)]| assert_eq!(passes(&usual(name)), expected, "{name}");
    let (text, denoise) = (("text-encode", 2), ("denoise", 100));
    check("wan2.1-t2v-14b", &[text, denoise, ("vae-decode", 21)]);
    check("wan2.2-ti2v-5b", &[text, denoise, ("vae-decode", 31)]);
    let seen = [text, ("image-encode", 1), ("vae-encode", 21), denoise, ("vae-decode", 21)];
    check("wan2.1-i2v-14b-480p", &seen);
    check("wan2.1-i2v-14b-720p", &seen);
    check("wan2.1-flf2v-14b-720p", &[text, ("image-encode", 2), ("vae-encode", 21), denoise, ("vae-decode", 21)]);
    check("wan2.1-vace-1.3b", &[text, ("vae-encode", 42), denoise, ("vae-decode", 21)]);
    check("cogvideox-2b", &[text, denoise, ("vae-decode", 6)]);
    check("cogvideox-5b-i2v", &[text, ("vae-encode", 1), denoise, ("vae-decode", 6)]);
    check("cogvideox1.5-5b", &[text, denoise, ("vae-decode", 10)]);
    check("flux.1-dev", &[("text-encode", 1), ("text-encode-2", 1), ("denoise", 28), ("vae-decode", 1)]);
    // 33 latent frames, five at a time in steps of three; the guidance scale is an input.
    check("hunyuanvideo", &[("text-encode", 1), ("text-encode-2", 1), ("denoise", 50), ("vae-decode", 11)]);
}

#[test]
fn two_transformers_share_the_steps() {
    for (name, encodes) in [("wan2.2-t2v-a14b", false), ("wan2.2-i2v-a14b", true)] {
        let job = usual(name);
        let (high, low) = (stage(&job, "denoise"), stage(&job, "denoise-low"));
        assert!(high.pass_count() > 0 && low.pass_count() > 0, "{name}");
        assert_eq!(high.pass_count() + low.pass_count(), 100, "{name}");
        assert_eq!(job.stages.iter().any(|s| s.name == "vae-encode"), encodes, "{name}");
        assert_eq!(job.components[low.component as usize], "transformer_2");
    }
}

/// One block of each kind: matrix products and attention in floating-point operations.
#[test]
fn a_wan_block_that_sees_a_picture_attends_to_it() {
    let job = usual("wan2.1-i2v-14b-480p");
    let block = task(stage(&job, "denoise"), 0, "blocks.0");
    let (tokens, dim, ffn, text, image) = (21 * 30 * 52u64, 5120u64, 13824u64, 512u64, 257u64);
    let expected = 2 * tokens * dim * (6 * dim + 2 * ffn) + 2 * (text + image) * dim * 2 * dim;
    assert_eq!(flops(block, LINEAR), expected);
    assert_eq!(flops(block, ATTENTION), 4 * tokens * dim * (tokens + text + image));
    // Noise and condition together make 36 channels, 2x2 pixels a token.
    let front = task(stage(&job, "denoise"), 0, "front");
    let embedded = 2 * tokens * 36 * 4 * dim;
    assert!(flops(front, LINEAR) > embedded);
    let layer = task(stage(&job, "image-encode"), 0, "vision_model.encoder.layers.3");
    assert_eq!(flops(layer, LINEAR), 2 * 257 * (4 * 1280 * 1280 + 2 * 1280 * 5120));
    assert_eq!(flops(layer, ATTENTION), 4 * 257 * 257 * 1280);
    about(stage(&job, "denoise").activation_peak().0, 5, tokens * dim * 2);
}

#[test]
fn a_second_picture_doubles_what_is_seen() {
    let job = usual("wan2.1-flf2v-14b-720p");
    let block = task(stage(&job, "denoise"), 0, "blocks.0");
    let (tokens, dim) = (21 * 45 * 80u64, 5120u64);
    assert_eq!(flops(block, ATTENTION), 4 * tokens * dim * (tokens + 512 + 514));
}

#[test]
fn control_blocks_cost_a_block_and_leave_their_hints() {
    let job = usual("wan2.1-vace-14b");
    let denoise = stage(&job, "denoise");
    assert_eq!(denoise.tasks_per_pass(), 1 + 8 + 40 + 1 + 1);
    let (tokens, dim) = (21 * 30 * 52u64, 5120u64);
    let main = flops(task(denoise, 0, "blocks.0"), LINEAR);
    let [first, second] = ["vace_blocks.0", "vace_blocks.1"].map(|name| flops(task(denoise, 0, name), LINEAR));
    let projection = 2 * tokens * dim * dim;
    assert_eq!((first - main, second - main), (2 * projection, projection));
    let one = tokens * dim * 2;
    let held = |name: &str| task(denoise, 0, name).memory.after.0;
    assert_eq!(held("vace_blocks.2") - held("vace_blocks.1"), one);
    // The last control block leaves one hint and ends the control state; block 0 takes the first hint.
    assert_eq!(held("vace_blocks.7"), held("vace_blocks.6"));
    assert_eq!(held("vace_blocks.7") - held("blocks.0"), one);
}

#[test]
fn a_cogvideox_block_is_one_joint_sequence() {
    let check = |name: &str, video: u64, dim: u64, tensors: u64| {
        let job = usual(name);
        let denoise = stage(&job, "denoise");
        let block = task(denoise, 0, "transformer_blocks.1");
        let all = 226 + video;
        let modulation = 2 * 2 * 512 * 6 * dim;
        assert_eq!(flops(block, LINEAR), 2 * all * 12 * dim * dim + modulation, "{name}");
        assert_eq!(flops(block, ATTENTION), 4 * all * all * dim, "{name}");
        about(block.memory.peak.0, tensors, all * dim * 2);
    };
    // The state, and queries, keys, values and result, or the four times wider inner state of the feed-forward
    // network with its input and output; added positions are one more.
    check("cogvideox-2b", 13 * 30 * 45, 1920, 7);
    check("cogvideox-5b", 13 * 30 * 45, 3072, 6);
    check("cogvideox-5b-i2v", 13 * 30 * 45, 3072, 7);
    // 21 latent frames and one of padding, two to a patch.
    check("cogvideox1.5-5b", 11 * 48 * 85, 3072, 6);
}

#[test]
fn a_cogvideox_level_convolves_what_its_batch_holds() {
    let job = usual("cogvideox-5b");
    let decode = stage(&job, "vae-decode");
    let (first, later) = (0, decode.passes.len() - 1);
    // The first batch has three latent frames and gives nine, the others two and give eight.
    for (pass, frames, latent_frames) in [(first, 9, 3), (later, 8, 2)] {
        let (pixels, latents) = (frames * 480 * 720, latent_frames * 60 * 90);
        let tail = task(decode, pass, "decoder.tail");
        assert_eq!(flops(tail, CONV), 2 * pixels * 27 * 128 * 3);
        assert_eq!(flops(tail, LINEAR), 2 * latents * 2 * 16 * 128);
        assert_eq!(tail.to_host.0, pixels * 3 * 4);
        let level = task(decode, pass, "decoder.up_blocks.3");
        assert_eq!(flops(level, CONV), 2 * pixels * 27 * (256 * 128 + 7 * 128 * 128));
        assert_eq!(flops(level, LINEAR), 2 * pixels * 256 * 128 + 2 * latents * 2 * 16 * (256 + 7 * 128));
    }
    // The first convolution of the last level: 256 channels in, their norm, 128 channels out, at full size, and the
    // batch's latents. What all
    // convolutions remember comes on top: two frames of each, of 256 and 128 channels at the last level alone.
    let peak = decode.peak_task().unwrap();
    assert_eq!(peak.name, "decoder.up_blocks.3");
    let [activations, .., remembered] = peak.memory.at_peak.map(|b| b.0);
    assert_eq!(activations, 8 * 480 * 720 * (256 + 256 + 128) * 2 + 2 * 60 * 90 * 16 * 2);
    assert!(remembered > 2 * 480 * 720 * (256 + 8 * 128) * 2 && remembered < activations);
}

#[test]
fn a_picture_is_encoded_once() {
    let job = usual("cogvideox1.5-5b-i2v");
    let encode = stage(&job, "vae-encode");
    let level = task(encode, 0, "encoder.down_blocks.0");
    let pixels = 768 * 1360u64;
    assert_eq!(flops(level, CONV), 2 * pixels * 27 * 6 * 128 * 128 + 2 * (pixels / 4) * 9 * 128 * 128);
    assert_eq!(task(encode, 0, "encoder.tail").to_host.0, 96 * 170 * 32 * 4);
}

#[test]
fn a_flux_picture_has_two_kinds_of_blocks() {
    let job = usual("flux.1-dev");
    let denoise = stage(&job, "denoise");
    assert_eq!(denoise.tasks_per_pass(), 1 + 19 + 38 + 1 + 1);
    let (image, text, dim) = (4096u64, 512u64, 3072u64);
    let all = image + text;
    let double = task(denoise, 0, "transformer_blocks.1");
    assert_eq!(flops(double, LINEAR), 2 * all * 12 * dim * dim + 2 * 2 * dim * 6 * dim);
    assert_eq!(flops(double, ATTENTION), 4 * all * all * dim);
    let single = task(denoise, 0, "single_transformer_blocks.1");
    assert_eq!(flops(single, LINEAR), 2 * all * 12 * dim * dim + 2 * dim * 3 * dim);
    assert_eq!(flops(single, ATTENTION), 4 * all * all * dim);
    // State, attention and inner state (four), and the two side by side (five) are live together.
    about(single.memory.peak.0, 11, all * dim * 2);
    let decode = stage(&job, "vae-decode");
    assert_eq!(flops(task(decode, 0, "decoder.tail"), CONV), 2 * 1024 * 1024 * 9 * 128 * 3);
    assert_eq!(flops(task(decode, 0, "decoder.front"), ATTENTION), 4 * (128 * 128u64).pow(2) * 512);
    let clip = task(stage(&job, "text-encode"), 0, "text_model.encoder.layers.0");
    assert_eq!(flops(clip, LINEAR), 2 * 77 * 12 * 768 * 768);
    let t5 = task(stage(&job, "text-encode-2"), 0, "encoder.block.3");
    assert_eq!(flops(t5, LINEAR), 2 * 512 * 4096 * (4 * 4096 + 3 * 10240));
}

#[test]
fn a_hunyuanvideo_pass_refines_its_prompt_first() {
    let job = usual("hunyuanvideo");
    let denoise = stage(&job, "denoise");
    assert_eq!(denoise.tasks_per_pass(), 1 + 2 + 20 + 40 + 1 + 1);
    let (video, text, dim) = (33 * 45 * 80u64, 256u64, 3072u64);
    let all = video + text;
    let refiner = task(denoise, 0, "context_embedder.token_refiner.refiner_blocks.1");
    assert_eq!(flops(refiner, LINEAR), 2 * text * 12 * dim * dim + 2 * dim * 2 * dim);
    assert_eq!(flops(refiner, ATTENTION), 4 * text * text * dim);
    let double = task(denoise, 0, "transformer_blocks.1");
    assert_eq!(flops(double, LINEAR), 2 * all * 12 * dim * dim + 2 * 2 * dim * 6 * dim);
    assert_eq!(flops(double, ATTENTION), 4 * all * all * dim);
    let single = task(denoise, 0, "single_transformer_blocks.1");
    assert_eq!(flops(single, LINEAR), 2 * all * 12 * dim * dim + 2 * dim * 3 * dim);
    assert_eq!(flops(single, ATTENTION), 4 * all * all * dim);
    // As in FLUX.1's: state, attention and inner state (four), and the two side by side (five).
    about(single.memory.peak.0, 11, all * dim * 2);
    // Patches of 2x2 latents of 16 channels, the prompt, and three numbers or rows for all tokens and one for the
    // prompt, each through two layers.
    let front = task(denoise, 0, "front");
    let embedded = 2 * (3 * 256 + 768 + 4096) * dim + 2 * 5 * dim * dim;
    assert_eq!(flops(front, LINEAR), 2 * video * 64 * dim + 2 * text * 4096 * dim + embedded);
    let tail = task(denoise, 0, "tail");
    assert_eq!(flops(tail, LINEAR), 2 * video * dim * 64 + 2 * dim * 2 * dim);
}

#[test]
fn a_hunyuanvideo_prompt_stands_in_a_template() {
    let job = usual("hunyuanvideo");
    let encode = stage(&job, "text-encode");
    // The rows of the table, 30 of the 32 layers, and no norm.
    assert_eq!(encode.tasks_per_pass(), 1 + 30);
    let (tokens, width, inner) = (95 + 256u64, 4096u64, 14336u64);
    let layer = task(encode, 0, "layers.29");
    // Queries and output are as wide as the state, keys and values a quarter of it.
    assert_eq!(flops(layer, LINEAR), 2 * tokens * width * (2 * width + 2 * width / 4 + 3 * inner));
    assert_eq!(flops(layer, ATTENTION), 4 * tokens * tokens * width);
    assert_eq!(layer.memory.after.0, 256 * width * 2);
    let clip = task(stage(&job, "text-encode-2"), 0, "text_model.encoder.layers.0");
    assert_eq!(flops(clip, LINEAR), 2 * 77 * 12 * 768 * 768);
}

#[test]
fn a_hunyuanvideo_level_convolves_a_batch_as_a_whole() {
    let job = usual("hunyuanvideo");
    let decode = stage(&job, "vae-decode");
    let (first, last) = (0, decode.passes.len() - 1);
    // Five latent frames make 17, the last three 9; the frame in front is dropped of all batches but the first.
    for (pass, latents, frames, kept) in [(first, 5u64, 17, 17), (last, 3, 9, 8)] {
        let pixels = 720 * 1280u64;
        let tail = task(decode, pass, "decoder.tail");
        assert_eq!(flops(tail, CONV), 2 * frames * pixels * 27 * 128 * 3);
        assert_eq!(tail.to_host.0, kept * pixels * 3 * 4);
        let level = task(decode, pass, "decoder.up_blocks.3");
        assert_eq!(flops(level, CONV), 2 * frames * pixels * 27 * (256 * 128 + 5 * 128 * 128));
        assert_eq!(flops(level, LINEAR), 2 * frames * pixels * 256 * 128);
        // The first level doubles the picture, the second picture and frames, but not the first frame.
        let level = task(decode, pass, "decoder.up_blocks.0");
        assert_eq!(flops(level, CONV), 2 * latents * (6 + 4) * 90 * 160 * 27 * 512 * 512);
        let level = task(decode, pass, "decoder.up_blocks.1");
        let (small, large) = (latents * 180 * 320, (2 * latents - 1) * 360 * 640);
        assert_eq!(flops(level, CONV), 2 * (6 * small + large) * 27 * 512 * 512);
        // A frame of the middle block attends to itself and to those before it.
        let pairs = latents * (latents + 1) / 2 * (90 * 160u64).pow(2);
        assert_eq!(flops(task(decode, pass, "decoder.front"), ATTENTION), 4 * pairs * 512);
    }
    // The first convolution of the last level: 256 channels in, their norm with the columns at its edges, and with the
    // rows as well.
    let peak = decode.peak_task().unwrap();
    let one = 17 * 720 * 1280 * 256 * 2u64;
    assert_eq!(peak.name, "decoder.up_blocks.3");
    about(peak.memory.peak.0, 3, one);
}

/// Guidance in one batch does the same work as one branch after the other.
#[test]
fn branches_cost_the_same_in_any_order() {
    for name in ["cogvideox-2b", "cogvideox-5b-i2v", "wan2.1-vace-1.3b", "wan2.1-i2v-14b-480p"] {
        let known = Known::new(name);
        let work = |cfg| {
            let job = known.job(&known.usual().unwrap(), &Knobs { cfg, ..plain() }).unwrap();
            let denoise = stage(&job, "denoise");
            let task = |t| [LINEAR, ATTENTION].map(|kind| flops(t, kind));
            let pass = |p: &usize| denoise.passes[*p].tasks.iter().filter(|t| t.name.contains("blocks.")).map(task);
            let runs: Vec<_> = denoise.run_order().collect();
            runs.iter().flat_map(pass).fold([0, 0], |sum: [u64; 2], one| [sum[0] + one[0], sum[1] + one[1]])
        };
        let (sequential, pair, batched) = (work(Cfg::Sequential), work(Cfg::Pair), work(Cfg::Batched));
        assert_eq!(sequential, pair, "{name}");
        assert_eq!(sequential[1], batched[1], "{name}");
        // A batch embeds the time once where two branches do it twice.
        assert!(batched[0] <= pair[0] && batched[0] > pair[0] / 100 * 99, "{name}");
    }
}

#[test]
fn nothing_lives_after_the_last_task() {
    for name in names() {
        let known = Known::new(name);
        let Some(request) = known.usual() else { continue };
        let tile = tile_sizes(&known.model).into_iter().nth(1);
        for tile in [None, tile] {
            let tile_overlap = tile.map_or(0, |t| tile_overlap(&known.model, t));
            let job = known.job(&Request { steps: 5, ..request.clone() }, &Knobs { tile, tile_overlap, ..plain() });
            let job = job.unwrap();
            let last = job.stages.last().unwrap();
            let (pass, _) = last.sequence.last().unwrap();
            assert_eq!(last.passes[*pass as usize].tasks.last().unwrap().memory.after.0, 0, "{name} {tile:?}");
        }
    }
}

#[test]
fn every_block_that_a_video_needs_is_visited() {
    for name in names() {
        let known = Known::new(name);
        let Some(request) = known.usual() else { continue };
        let job = known.job(&request, &plain()).unwrap();
        let visited: BTreeSet<_> = job.stages.iter().flat_map(|s| s.distinct_blocks()).collect();
        assert_eq!(visited.len(), job.blocks.len(), "{name}");
        let encodes = job.stages.iter().any(|s| s.name == "vae-encode");
        for component in known.model.components.iter().filter(|c| !c.absent) {
            let used = |index: usize| {
                job.blocks
                    .iter()
                    .any(|b| job.components[b.component as usize] == component.name && b.index as usize == index)
            };
            // Text needs no encoder. Of CLIP's layers for pictures the last and what follows it are not read, of
            // Llama's the last two and what follows.
            let spared = |block: &str| match component.class.as_str() {
                "CLIPVisionModel" => block == "tail" || block.ends_with(".31"),
                "LlamaModel" => block == "tail" || [".30", ".31"].iter().any(|end| block.ends_with(end)),
                _ => !encodes && block.starts_with("encoder.") && component.name == "vae",
            };
            for (i, block) in component.blocks.iter().enumerate() {
                assert_eq!(used(i), !spared(&block.name), "{name} {} {}", component.name, block.name);
            }
        }
    }
}

#[test]
fn all_weights_but_gathered_tables_are_in_blocks() {
    for name in names() {
        let model = Known::new(name).model;
        let described = ["AutoencoderKLWan", "AutoencoderKLCogVideoX", "AutoencoderKLHunyuanVideo", "AutoencoderKL"];
        let vae = model.component("vae").filter(|c| described.contains(&c.class.as_str()));
        let Some(vae) = vae else { continue };
        let mut inside: Vec<u32> = vae.blocks.iter().flat_map(|b| b.tensors.iter().copied()).collect();
        inside.sort_unstable();
        let all: Vec<u32> = (0..vae.tensors.len() as u32).collect();
        assert_eq!(inside, all, "{name}");
    }
}

#[test]
fn tiles_cut_both_sides_of_the_vae_down() {
    let check = |name: &str, stages: &[(&str, u64)]| {
        let known = Known::new(name);
        let request = known.usual().unwrap();
        let tile = tile_sizes(&known.model)[1];
        let overlap = tile_overlap(&known.model, tile);
        let whole = known.job(&request, &plain()).unwrap();
        let cut = known.job(&request, &Knobs { tile: Some(tile), tile_overlap: overlap, ..plain() }).unwrap();
        for (name, tiles) in stages {
            let (whole, cut) = (stage(&whole, name), stage(&cut, name));
            assert_eq!(cut.pass_count(), whole.pass_count() * tiles, "{name}");
            assert!(cut.activation_peak() < whole.activation_peak(), "{name}");
        }
    };
    // 832x480 in steps of 288, 720x480 in steps of 288x168, 1024x1024 in steps of 576, 1280x720 in steps of 288.
    check("wan2.1-vace-1.3b", &[("vae-encode", 6), ("vae-decode", 6)]);
    check("cogvideox-5b-i2v", &[("vae-encode", 9), ("vae-decode", 9)]);
    check("flux.1-dev", &[("vae-decode", 4)]);
    check("hunyuanvideo", &[("vae-decode", 15)]);
}

#[test]
fn impossible_requests_name_what_is_possible() {
    let check = |name: &str, change: &dyn Fn(&mut Request), expected: &str| {
        let known = Known::new(name);
        let mut request = known.usual().unwrap();
        change(&mut request);
        let error = known.job(&request, &plain()).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    };
    check("cogvideox-5b", &|r| r.size.width = 832, "--size 720x480");
    check("cogvideox-5b", &|r| r.frames = 50, "the nearest is --frames 49");
    check("cogvideox-2b", &|r| r.frames = 13, "--frames 9 and --frames 17");
    check("cogvideox1.5-5b", &|r| r.frames = 88, "--frames 81 and --frames 97");
    check("cogvideox1.5-5b", &|r| r.size.height = 770, "--size 1360x768");
    check("flux.1-dev", &|r| r.frames = 5, "--frames 1");
    check("flux.1-dev", &|r| r.size.width = 1000, "--size 1008x1024");
    check("flux.1-dev", &|r| r.steps = 0, "1 to 1000");
    check("hunyuanvideo", &|r| r.frames = 128, "--frames 125 and --frames 129");
    check("hunyuanvideo", &|r| r.size.width = 1288, "--size 1296x720");
    check("hunyuanvideo", &|r| r.steps = 1001, "1 to 1000");
    check("wan2.1-flf2v-14b-720p", &|r| r.frames = 1, "--frames 5");
    check("wan2.1-vace-14b", &|r| r.frames = 80, "--frames 77 and --frames 81");
}

#[test]
fn absurd_requests_are_refused() {
    const SIDES: [u32; 4] = [0, 1, 7, u32::MAX];
    for name in names() {
        let known = Known::new(name);
        let usual = known.usual().unwrap_or_else(|| Known::new("flux.1-dev").usual().unwrap());
        let refused = |request: Request, knobs: Knobs| {
            assert!(known.job(&request, &knobs).is_err(), "{name}: {request:?} {knobs:?}");
        };
        for n in SIDES {
            refused(Request { size: Size { width: n, height: n }, ..usual.clone() }, plain());
            let tile = Some(Size { width: n, height: n });
            refused(usual.clone(), Knobs { tile, tile_overlap: n, ..plain() });
        }
        for n in [0, u32::MAX] {
            refused(Request { frames: n, ..usual.clone() }, plain());
            refused(Request { steps: n, ..usual.clone() }, plain());
        }
        for guidance in [f64::NAN, f64::INFINITY, -1.0] {
            refused(Request { guidance, ..usual.clone() }, plain());
        }
        refused(usual.clone(), Knobs { frame_chunk: 0, ..plain() });
        let tile = Some(Size { width: 256, height: 256 });
        refused(Request { size: Size { width: 1 << 31, height: 1 << 31 }, ..usual.clone() }, Knobs { tile, ..plain() });
    }
}

/// The largest requests that are allowed have more operations than 64 bits count; they are lowered all the same.
#[test]
fn the_largest_requests_are_lowered() {
    let check = |name: &str, side: u32, frames: u32| {
        let known = Known::new(name);
        let size = Size { width: side, height: side };
        let request = Request {
            size,
            frames,
            steps: 1000,
            prompt_tokens: u32::MAX,
            negative_tokens: 0,
            ..known.usual().unwrap()
        };
        let tile = Some(Size { width: 256, height: 256 });
        let knobs = Knobs { tile, tile_overlap: 64, frame_chunk: u32::MAX, ..Knobs::default() };
        assert!(known.job(&request, &knobs).is_ok(), "{name}");
        assert!(known.job(&request, &Knobs { frame_chunk: 1, ..knobs }).is_ok(), "{name}");
    };
    check("wan2.1-t2v-1.3b", 16384, 4093);
    check("wan2.1-vace-1.3b", 16384, 4093);
    check("cogvideox1.5-5b", 2400, 161);
    check("flux.1-dev", 8192, 1);
    check("hunyuanvideo", 8192, 4093);
}
