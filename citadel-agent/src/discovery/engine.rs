//! Identifies the engine of a server. Pure.
//!
//! From, in order of reliability: names on its metrics page, `owned_by` in `/v1/models`, the `Server` header, its
//! command line.

/// A known engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// llama.cpp's `llama-server`.
    LlamaCpp,
    /// SGLang.
    SgLang,
    /// Hugging Face's Text Generation Inference.
    Tgi,
    /// NVIDIA Triton, including its TensorRT-LLM backend.
    Triton,
    /// TensorRT-LLM's own server, `trtllm-serve`.
    TensorRtLlm,
    /// Ollama.
    Ollama,
    /// `transformers serve`.
    Transformers,
    /// LMDeploy.
    LmDeploy,
    /// The proxy litellm, which forwards requests to other servers.
    LiteLlm,
}

/// How to identify an engine.
struct Marks {
    engine: Engine,
    /// Value of the label `engine`.
    name: &'static str,
    /// Prefixes of the names on its metrics page.
    metrics: &'static [&'static str],
    /// `owned_by` of its models.
    owners: &'static [&'static str],
    /// Names of its programs and Python modules.
    programs: &'static [&'static str],
}

/// All engines, in the order of precedence for a page with names of two: Triton with the vLLM backend exports both.
const MARKS: &[Marks] = &[
    Marks { engine: Engine::Vllm, name: "vllm", metrics: &["vllm:"], owners: &["vllm"], programs: &["vllm"] },
    Marks {
        engine: Engine::LlamaCpp,
        name: "llama.cpp",
        metrics: &["llamacpp:"],
        owners: &["llamacpp"],
        programs: &["llama-server"],
    },
    Marks { engine: Engine::SgLang, name: "sglang", metrics: &["sglang:"], owners: &["sglang"], programs: &["sglang"] },
    Marks {
        engine: Engine::Tgi,
        name: "tgi",
        metrics: &["tgi_"],
        owners: &[],
        programs: &["text-generation-launcher", "text-generation-router"],
    },
    Marks {
        engine: Engine::TensorRtLlm,
        name: "tensorrt-llm",
        metrics: &["trtllm_"],
        owners: &["tensorrt_llm"],
        programs: &["trtllm-serve"],
    },
    Marks {
        engine: Engine::LmDeploy,
        name: "lmdeploy",
        metrics: &["lmdeploy:"],
        owners: &["lmdeploy"],
        programs: &["lmdeploy"],
    },
    Marks { engine: Engine::LiteLlm, name: "litellm", metrics: &["litellm_"], owners: &[], programs: &["litellm"] },
    Marks {
        engine: Engine::Triton,
        name: "triton",
        metrics: &["nv_trt_llm_", "nv_inference_"],
        owners: &[],
        programs: &["tritonserver"],
    },
    // The namespace of models in Ollama's registry.
    Marks { engine: Engine::Ollama, name: "ollama", metrics: &[], owners: &["library"], programs: &["ollama"] },
    Marks {
        engine: Engine::Transformers,
        name: "transformers",
        metrics: &[],
        owners: &[],
        programs: &["transformers"],
    },
];

impl Engine {
    /// Every engine.
    pub fn all() -> impl Iterator<Item = Self> {
        MARKS.iter().map(|marks| marks.engine)
    }

    /// Value of the label `engine`.
    #[must_use]
    pub fn name(self) -> &'static str {
        MARKS.iter().find(|marks| marks.engine == self).map_or("", |marks| marks.name)
    }

    /// The engine with a metric of this name.
    #[must_use]
    pub fn of_metric(name: &str) -> Option<Self> {
        find(|marks| marks.metrics.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Which of two engines serves a page that has metrics of both.
    #[must_use]
    pub fn prefer(self, other: Self) -> Self {
        find(|marks| marks.engine == self || marks.engine == other).unwrap_or(self)
    }

    /// The engine whose models have this owner.
    #[must_use]
    pub fn of_owner(owner: &str) -> Option<Self> {
        find(|marks| marks.owners.contains(&owner))
    }

    /// The engine with this `Server` header; most have that of their HTTP library.
    #[must_use]
    pub fn of_header(server: &str) -> Option<Self> {
        (server == "llama.cpp").then_some(Self::LlamaCpp)
    }

    /// The engine started with these arguments: the program, or the script of an interpreter.
    #[must_use]
    pub fn of_command(arguments: &[String]) -> Option<Self> {
        let (program, rest) = arguments.split_first()?;
        let file = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let named = |name: &str| {
            // A process with its own title ("vllm: worker") is identified as well.
            let name = name.split([':', ' ']).next().unwrap_or(name);
            find(|marks| marks.programs.contains(&name))
        };
        let interpreter = ["python", "bash", "sh", "uv"].iter().any(|name| file(program).starts_with(name));
        let script = || {
            let at = rest.iter().position(|word| !word.starts_with('-') || word == "-m")?;
            match rest[at].as_str() {
                "-m" => named(rest.get(at + 1)?.split('.').next()?),
                path => named(&file(path)),
            }
        };
        named(&file(program)).or_else(|| interpreter.then(script)?)
    }
}

fn find(fits: impl Fn(&Marks) -> bool) -> Option<Engine> {
    MARKS.iter().find(|marks| fits(marks)).map(|marks| marks.engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_recognised_by_what_they_show() {
        assert_eq!(Engine::of_metric("vllm:num_requests_running"), Some(Engine::Vllm));
        assert_eq!(Engine::of_metric("process_open_fds"), None);
        assert_eq!(Engine::of_owner("llamacpp"), Some(Engine::LlamaCpp));
        // What litellm says of its models: not by whom they are served.
        assert_eq!(Engine::of_owner("openai"), None);
        assert_eq!(Engine::of_header("llama.cpp"), Some(Engine::LlamaCpp));
        assert_eq!(Engine::of_header("uvicorn"), None);
        assert_eq!(Engine::Triton.prefer(Engine::Vllm), Engine::Vllm);
        assert_eq!(Engine::all().count(), 10);
    }

    #[test]
    fn engines_are_recognised_by_their_command_line() {
        let of = |line: &str| Engine::of_command(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for (line, engine) in [
            ("/opt/v/bin/python /opt/v/bin/vllm serve m --port 11400", Some(Engine::Vllm)),
            ("/usr/bin/python3 -m vllm.entrypoints.openai.api_server --model m", Some(Engine::Vllm)),
            ("/usr/bin/llama-server -m m.gguf", Some(Engine::LlamaCpp)),
            ("python3 -m sglang.launch_server --model-path m", Some(Engine::SgLang)),
            ("text-generation-router --port 80", Some(Engine::Tgi)),
            ("tritonserver --model-repository=/m", Some(Engine::Triton)),
            ("/usr/bin/python3 /usr/local/bin/trtllm-serve m", Some(Engine::TensorRtLlm)),
            ("/usr/bin/ollama serve", Some(Engine::Ollama)),
            ("python /v/bin/transformers serve", Some(Engine::Transformers)),
            ("python3 -u /v/bin/lmdeploy serve api_server m", Some(Engine::LmDeploy)),
            ("/v/bin/python3.12 /v/bin/litellm --config c.yaml", Some(Engine::LiteLlm)),
            ("python3 app.py --engine vllm", None),
            ("nginx: worker process", None),
            ("cat vllm", None),
            ("", None),
        ] {
            assert_eq!(of(line), engine, "{line}");
        }
    }
}
