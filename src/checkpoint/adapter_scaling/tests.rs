use super::super::adapter::ADAPTER_CONFIG;
use super::*;

fn config(text: &str) -> JsonFile {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else { panic!("the test's JSON is an object") };
    JsonFile::from_object(ADAPTER_CONFIG, object)
}

/// What is said of a configuration that is not taken.
fn refused(text: &str) -> String {
    PeftScaling::read(&config(text)).err().unwrap_or_else(|| panic!("taken: {text}")).to_string()
}

#[test]
fn what_pefts_adapters_are_multiplied_by() {
    for (text, expected) in [
        (r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", "rank_pattern": {}}"#, 1.5),
        (r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": true, "modules_to_save": null}"#, 3.0),
    ] {
        assert_eq!(PeftScaling::read(&config(text)).unwrap().of("layer.0.query").unwrap(), (4, expected), "{text}");
    }
    for (more, named) in [
        (r#""use_dora": true"#, "use_dora"),
        (r#""bias": "lora_only""#, "bias"),
        (r#""modules_to_save": ["classifier"]"#, "modules_to_save"),
        (r#""alpha_pattern": {"(query": 3}, "r": 1, "lora_alpha": 1"#, "alpha_pattern"),
        (r#""alpha_pattern": [3], "r": 1, "lora_alpha": 1"#, "alpha_pattern"),
        (r#""rank_pattern": {"query": "x"}, "r": 1, "lora_alpha": 1"#, "rank_pattern"),
        (r#""init_lora_weights": "pissa_niter_4""#, "init_lora_weights"),
        (r#""alora_invocation_tokens": [5]"#, "alora_invocation_tokens"),
        (r#""r": 0, "lora_alpha": 1"#, "r: expected at least 1"),
        (r#""lora_alpha": 1"#, "the key r is missing"),
        (r#""r": 1, "lora_alpha": null"#, "the key lora_alpha is missing"),
    ] {
        let message = refused(&format!(r#"{{"peft_type": "LORA", {more}}}"#));
        assert!(message.contains(named) && message.contains(ADAPTER_CONFIG), "{message}");
    }
    assert!(refused(r#"{"peft_type": "IA3"}"#).contains("peft_type"));
}

/// As `get_pattern_key` of PEFT 0.21 does: `(.*\.)?(pattern)$`, matched from the start of the name.
#[test]
fn layers_by_patterns_have_other_ranks_and_scales() {
    let scaling = config(
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"query": 2, "^layer.0.key": 1, "layer\\.1\\..*dense": 8},
            "alpha_pattern": {"query": 3, "layer.1.query": 3.0, "value": 6, "0.value": 7}}"#,
    );
    let scaling = PeftScaling::read(&scaling).unwrap();
    for (layer, expected) in [
        ("layer.0.query", (2, 1.5)),
        ("layer.1.query", (2, 1.5)), // two patterns that say the same
        ("layer.0.subquery", (4, 2.0)),
        ("layer.0.key", (1, 8.0)),
        ("encoder.layer.0.key", (4, 2.0)),
        ("encoder.layer.1.output.dense", (8, 1.0)),
        ("layer.1.value", (4, 1.5)),
    ] {
        assert_eq!(scaling.of(layer).unwrap(), expected, "{layer}");
    }
    let both = scaling.of("layer.0.value").unwrap_err().to_string();
    assert!(
        ["alpha_pattern", "\"value\"", "\"0.value\"", "for layer.0.value"].iter().all(|it| both.contains(it)),
        "{both}"
    );
    let odd = config(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"query": 1.5, "key": 0}}"#);
    let odd = PeftScaling::read(&odd).unwrap();
    for layer in ["query", "key"] {
        assert!(odd.of(layer).unwrap_err().to_string().contains("whole numbers, at least 1"));
    }
}
