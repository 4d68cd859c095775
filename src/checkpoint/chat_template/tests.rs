//! What transformers 5.23 renders of the same templates.

use super::*;

/// A template in a folder of these files.
fn read(files: &[(&str, &str)], format: Option<&str>) -> Result<Option<ChatTemplate>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    ChatTemplate::read(folder.path(), format)
}

fn template(text: &str) -> ChatTemplate {
    let config = r#"{"bos_token": null, "eos_token": {"content": "</s>"}, "chat_template": "not this one"}"#;
    read(&[(TEMPLATE_FILE, text), ("tokenizer_config.json", config)], None).unwrap().unwrap()
}

fn arguments(text: &str) -> JsonFile {
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text) else { panic!("{text}") };
    JsonFile::from_object("x.json", object)
}

const ANY: Frame = Frame { prompt: "", task: None };

const CHAT: &str = "{% for message in messages %}
    <{{ message.role }}>
  {{- message['content'] | trim }}
{% endfor %}
{% if add_generation_prompt %}
<assistant>{{ eos_token }}
{% endif %}
";

#[test]
fn roles_and_blanks() {
    let mut chat = template(CHAT);
    assert_eq!(chat.render(ANY, Content::Text(" a\n")).unwrap(), "    <user>a\n");
    let frame = Frame { prompt: "Find it", ..ANY };
    let pair = Content::Pair("a <b> & 'c'", "");
    assert_eq!(chat.render(frame, pair).unwrap(), "    <system>Find it\n    <query>a <b> & 'c'\n    <document>\n");
    chat.set_variables(&arguments(r#"{"add_generation_prompt": true, "restore_suffix": false}"#)).unwrap();
    assert_eq!(chat.render(ANY, Content::Text("a")).unwrap(), "    <user>a\n<assistant></s>\n");
    assert!(!chat.restores_suffix());
}

#[test]
fn python_in_templates() {
    for (text, expected) in [
        ("{{ 'a,b'.split(',')[-1].upper() }}{{ messages[::-1][0].role }}", "Buser"),
        ("{{ [1, 'a', none, true, 1.0] }} {{ {'a': \"it's\"} }}", r#"[1, 'a', None, True, 1.0] {'a': "it's"}"#),
        ("{{ messages | tojson }}", r#"[{"role": "user", "content": "é <1>"}]"#),
        ("{{ messages[0] | tojson(indent=1) }}", "{\n \"role\": \"user\",\n \"content\": \"é <1>\"\n}"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{%- generation -%} {{ messages[0].role }} {%- endgeneration %}\n.", "user."),
        ("{{ missing }}{{ tools is none }}{{ x | default('y', true) }}{{ task is defined }}", "TrueyFalse"),
        ("{{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first }}.\r\n", "."),
    ] {
        assert_eq!(template(text).render(ANY, Content::Text("é <1>")).unwrap(), expected, "{text}");
    }
    let task = Frame { task: Some("query"), ..ANY };
    assert_eq!(template("{{ task }}").render(task, Content::Text("")).unwrap(), "query");
}

#[test]
fn a_template_shows_its_kind_of_content() {
    const PARTS: &str = "{% for m in messages %}{{ m.content[0].type }}: {{ m.content[0].text }};{% endfor %}";
    assert_eq!(template(PARTS).render(ANY, Content::Pair("a", "b")).unwrap(), "text: a;text: b;");
    let text = "{{ messages[0].content }}";
    assert_eq!(template(text).render(ANY, Content::Text("a")).unwrap(), "a");
    let structured = read(&[(TEMPLATE_FILE, text)], Some("structured")).unwrap().unwrap();
    assert_eq!(structured.render(ANY, Content::Text("a")).unwrap(), "[{'type': 'text', 'text': 'a'}]");
}

#[test]
fn where_templates_come_from() {
    let in_config = |value: &str| {
        let config = format!(r#"{{"chat_template": {value}}}"#);
        let read = read(&[("tokenizer_config.json", config.as_str())], Some("flat"));
        read.map(|chat| chat.map(|chat| chat.render(ANY, Content::Text("a")).unwrap()))
    };
    assert!(read(&[], None).unwrap().is_none() && in_config("null").unwrap().is_none());
    assert_eq!(in_config(r#""{{ messages[0].role }}""#).unwrap().unwrap(), "user");
    let named = r#"[{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]"#;
    assert_eq!(in_config(named).unwrap().unwrap(), "y");
    for wrong in [r#"[{"name": "rag", "template": "x"}]"#, "[]", "7"] {
        let message = in_config(wrong).unwrap_err().to_string();
        assert!(message.contains("tokenizer_config.json: chat_template: expected"), "{message}");
    }
}

#[test]
fn failures_name_the_file() {
    let message = read(&[(TEMPLATE_FILE, "a\n{% if %}")], None).unwrap_err().to_string();
    assert!(message.contains("chat_template.jinja: not a chat template that is understood: syntax error"), "{message}");
    let raises = template("{{ raise_exception('roles must alternate') }}");
    let message = raises.render(ANY, Content::Text("a")).unwrap_err().to_string();
    assert!(message.contains("chat_template.jinja: the chat template failed"), "{message}");
    assert!(message.contains("roles must alternate") && message.contains(":1)"), "{message}");
    let message = template("").set_variables(&arguments(r#"{"max_length": 8}"#)).unwrap_err().to_string();
    assert!(message.contains("x.json: max_length = 8 is not supported"), "{message}");
}

#[test]
fn templates_that_cannot_carry_a_pair() {
    template(CHAT).check_pairs().unwrap();
    let of = |role: &str| {
        format!("{{{{ messages | selectattr('role', 'eq', '{role}') | map(attribute='content') | first }}}}")
    };
    for (text, failure) in [
        (of("user"), "renders neither"),
        (of("document"), "does not render the query"),
        (of("query"), "does not render the document"),
        ("{{ raise_exception('only user') }}".to_string(), "only user"),
    ] {
        let message = template(&text).check_pairs().unwrap_err().to_string();
        assert!(message.contains("chat_template.jinja") && message.contains(failure), "{message}");
    }
}
