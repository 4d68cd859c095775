use super::*;
use crate::checkpoint::TEXT_GENERATION;
use crate::program::PoolMode;

fn read_as(folder: &Path, model_type: ModelType) -> Result<(Settings, Vec<Module>)> {
    read(folder, model_type, &Bases::default())
}

fn st_modules(folder: &Path) -> Result<Vec<Module>> {
    read_as(folder, ModelType::SentenceTransformer).map(|(_, modules)| modules)
}

/// A folder with these files, by path inside it.
fn model(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

const BERT: (&str, &str) = ("config.json", r#"{"model_type": "bert", "hidden_size": 8}"#);

#[test]
fn old_and_new_class_paths_and_folders() {
    let old = r#"[{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
                  {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                  {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    let new = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
                  {"idx": 1, "name": "1", "path": "1_Pooling",
                   "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
                  {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.base.modules.dense.Dense"},
                  {"idx": 3, "name": "3", "path": "3_LayerNorm", "type": "x.LayerNorm"},
                  {"idx": 4, "name": "4", "path": "4_Dropout", "type": "x.Dropout"}]"#;
    let old = model(&[
        ("modules.json", old),
        ("0_Transformer/config.json", BERT.1),
        ("0_Transformer/sentence_roberta_config.json", r#"{"max_seq_length": 128, "do_lower_case": true}"#),
        (
            "1_Pooling/config.json",
            r#"{"word_embedding_dimension": 8, "pooling_mode_max_tokens": true,
            "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
        ),
    ]);
    let modules = st_modules(old.path()).unwrap();
    let ModuleKind::Transformer(transformer) = &modules[0].kind else { panic!("{modules:?}") };
    assert_eq!((transformer.max_seq_length, transformer.do_lower_case), (Some(128), true));
    assert_eq!(modules[0].path, old.path().join("0_Transformer"));
    let ModuleKind::Pooling(pooling) = &modules[1].kind else { panic!("{modules:?}") };
    assert_eq!(pooling.modes, [PoolMode::Cls, PoolMode::Max]);
    assert!(matches!(modules[2].kind, ModuleKind::Normalize(Feature::Sentences)));

    let dense = r#"{"in_features": 8, "out_features": 4, "bias": false, "use_residual": true, "novel_key": 1,
        "activation_function": "torch.nn.modules.linear.Identity", "module_input_name": "sentence_embedding"}"#;
    let new = model(&[
        ("modules.json", new),
        BERT,
        (
            "1_Pooling/config.json",
            r#"{"embedding_dimension": 8, "pooling_mode": ["lasttoken", "mean"],
            "include_prompt": false}"#,
        ),
        ("2_Dense/config.json", dense),
        ("3_LayerNorm/config.json", r#"{"dimension": 4}"#),
    ]);
    let modules = st_modules(new.path()).unwrap();
    let ModuleKind::Pooling(pooling) = &modules[1].kind else { panic!("{modules:?}") };
    assert_eq!(pooling.modes, [PoolMode::LastToken, PoolMode::Mean]);
    assert!(!pooling.include_prompt);
    let ModuleKind::Dense(dense) = &modules[2].kind else { panic!("{modules:?}") };
    assert_eq!(dense.activation, "Identity");
    assert!(!dense.bias && dense.residual);
    assert!(matches!(modules[3].kind, ModuleKind::LayerNorm { dim: 4 }));
    assert!(matches!(modules[4].kind, ModuleKind::Dropout));
}

#[test]
fn without_modules_json() {
    for (config, mode) in [
        (BERT.1, PoolMode::Mean),
        (r#"{"hidden_size": 8, "architectures": ["Qwen3ForCausalLM"]}"#, PoolMode::LastToken),
        (r#"{"hidden_size": 8, "architectures": ["Qwen3ForCausalLM"], "is_causal": false}"#, PoolMode::Mean),
        (r#"{"dim": 8, "model_type": "distilbert"}"#, PoolMode::Mean),
    ] {
        let folder = model(&[("config.json", config)]);
        let modules = st_modules(folder.path()).unwrap();
        let ModuleKind::Pooling(pooling) = &modules[1].kind else { panic!("{modules:?}") };
        assert_eq!((pooling.dim, pooling.modes[0], modules.len()), (8, mode, 2), "{config}");
    }
}

#[test]
fn language_models_that_score() {
    let modules = r#"[{"type": "x.Transformer", "path": ""}, {"type": "x.LogitScore", "path": "1"}]"#;
    let read_stored = |module: &str, score: &str| {
        let settings = r#"{"model_type": "CrossEncoder"}"#;
        let files = [
            ("modules.json", modules),
            BERT,
            ("sentence_bert_config.json", module),
            ("config_sentence_transformers.json", settings),
            ("1/config.json", score),
            ("chat_template.jinja", "{{ messages }}"),
        ];
        read_as(model(&files).path(), ModelType::CrossEncoder).map(|(_, modules)| modules)
    };
    let module = r#"{"transformer_task": "text-generation", "module_output_name": "causal_logits", "modality_config":
        {"text": {"method_output_name": "logits"}, "message": {"method_output_name": "logits", "format": "flat"}}}"#;
    let modules = read_stored(module, r#"{"true_token_id": 7, "false_token_id": null}"#).unwrap();
    let ModuleKind::Transformer(transformer) = &modules[0].kind else { panic!("{modules:?}") };
    assert!(transformer.task == TEXT_GENERATION && transformer.chat.is_some());
    let ModuleKind::LogitScore(score) = modules[1].kind else { panic!("{modules:?}") };
    assert_eq!(score, LogitScoreConfig { true_token: 7, false_token: None });
    for (module, score, named) in [
        (module, r#"{"false_token_id": 1}"#, "true_token_id is missing"),
        (module, r#"{"true_token_id": -1}"#, "true_token_id: expected a whole number"),
        (module, r#"{"true_token_id": 1, "module_input_name": "scores"}"#, r#"module_input_name = "scores""#),
        (r#"{"transformer_task": "any-to-any"}"#, "{}", r#"transformer_task = "any-to-any""#),
        (&module.replace("flat", "round"), "{}", r#"modality_config.message.format = "round""#),
    ] {
        let message = read_stored(module, score).unwrap_err().to_string();
        assert!(message.contains(named) && message.contains("config.json"), "{message}");
    }
}

#[test]
fn without_modules_json_a_language_model_says_yes_or_no() {
    let config = ("config.json", r#"{"hidden_size": 8, "architectures": ["Qwen3ForCausalLM"]}"#);
    let read = |vocabulary: &str| {
        let folder = model(&[config, ("vocab.txt", vocabulary)]);
        read_as(folder.path(), ModelType::CrossEncoder).map(|(_, modules)| modules)
    };
    let special = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    let modules = read(&format!("{special}no\nyes\n")).unwrap();
    let ModuleKind::LogitScore(score) = modules[1].kind else { panic!("{modules:?}") };
    assert_eq!(score, LogitScoreConfig { true_token: 6, false_token: Some(5) });
    let message = read(&format!("{special}yes\n")).unwrap_err().to_string();
    assert!(message.contains("no token \"no\""), "{message}");
}

#[test]
fn refusals_name_the_file_the_key_and_the_value() {
    let refusal = |modules: &str, pooling: &str| {
        let folder = model(&[("modules.json", modules), BERT, ("1/config.json", pooling)]);
        st_modules(folder.path()).unwrap_err().to_string()
    };
    let message = refusal(r#"[{"type": "custom_st.MyModule", "path": ""}]"#, "{}");
    assert!(message.contains("modules.json: type = custom_st.MyModule is not supported"), "{message}");
    assert!(message.contains(SUPPORTED_CLASSES), "{message}");
    for path in ["../x", "/etc", "a\\\\b", "C:/x"] {
        let message = refusal(&format!(r#"[{{"type": "models.Pooling", "path": "{path}"}}]"#), "{}");
        assert!(message.contains("modules.json: module 0: path"), "{message}");
    }
    for modules in ["[]", "{}", "[1]", r#"[{"path": ""}]"#] {
        assert!(refusal(modules, "{}").contains("modules.json"));
    }
    let pooling = r#"[{"type": "models.Pooling", "path": "1"}]"#;
    for (config, named) in [
        (r#"{"word_embedding_dimension": 8, "pooling_mode": "median"}"#, r#"pooling_mode = "median""#),
        (r#"{"word_embedding_dimension": 8, "pooling_mode": []}"#, "pooling_mode = []"),
        (r#"{"word_embedding_dimension": 8, "pooling_mode_novel": true}"#, "pooling_mode_novel = true"),
        (r#"{"word_embedding_dimension": 8, "pooling_mode_cls_token": "yes"}"#, r#"found "yes""#),
        (r#"{"pooling_mode": "cls"}"#, "word_embedding_dimension is missing"),
    ] {
        let message = refusal(pooling, config);
        assert!(message.contains(named) && message.contains("config.json"), "{message}");
    }
    let late = r#"[{"type": "models.Dense", "path": "1"}]"#;
    let message = refusal(late, r#"{"in_features": 1, "out_features": 1, "module_output_name": "scores"}"#);
    assert!(message.contains("module_output_name"), "{message}");
    let message = refusal(late, r#"{"in_features": 1, "out_features": 1, "activation_function": "evil.run"}"#);
    assert!(message.contains("evil.run"), "{message}");
}
