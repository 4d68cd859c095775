use super::*;
use ::safetensors::{Dtype, serialize_to_file, tensor::TensorView};

#[test]
fn an_adapter_in_the_place_of_a_model_names_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let bases = || Bases::of(folder.path(), |base| Ok(Path::new("models").join(base)));
    assert_eq!(bases().unwrap().backbone_of(folder.path()), folder.path());
    std::fs::write(folder.path().join(ADAPTER_CONFIG), r#"{"peft_type": "LORA"}"#).unwrap();
    assert!(bases().unwrap_err().to_string().contains("base_model_name_or_path"));
    let text = r#"{"base_model_name_or_path": "microsoft/mpnet-base"}"#;
    std::fs::write(folder.path().join(ADAPTER_CONFIG), text).unwrap();
    assert_eq!(bases().unwrap().backbone_of(folder.path()), Path::new("models/microsoft/mpnet-base"));
    assert_eq!(bases().unwrap().backbone_of(Path::new("1_Pooling")), Path::new("1_Pooling"));
}

/// Writes tensors of ones.
fn write(path: &Path, tensors: &[(&str, &[usize])]) {
    let bytes = |shape: &[usize]| 1f32.to_le_bytes().repeat(shape.iter().product());
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, shape)| bytes(shape)).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| (name.to_string(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

#[test]
fn an_adapter_fits_its_model_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("model.safetensors"),
        &[
            ("roberta.embeddings.word_embeddings.weight", &[5, 2]),
            ("roberta.encoder.layers.0.mixer.Wqkv.weight", &[6, 2]),
        ],
    );
    let module = ModuleWeights::open(folder.path()).unwrap();
    std::fs::write(folder.path().join(ADAPTER_CONFIG), r#"{"peft_type": "LORA", "r": 3, "lora_alpha": 3}"#).unwrap();
    let deltas = |tensors: &[(&str, &[usize])]| {
        write(&folder.path().join(ADAPTER_WEIGHTS), tensors);
        Adapter::of_peft("x", folder.path()).unwrap().deltas(&module).map_err(|error| error.to_string())
    };
    const KEY: &str = "base_model.model.layers.0.self_attn.k_proj";
    let [a, b] = ["A", "B"].map(|which| format!("{KEY}.lora_{which}.weight"));
    let found = deltas(&[(&a, &[3, 2]), (&b, &[2, 3])]).unwrap();
    let [delta] = &found["roberta.encoder.layers.0.mixer.Wqkv.weight"][..] else { panic!("one part") };
    let mut values = vec![0.0; 12];
    delta.add(0..6, &mut values);
    assert_eq!(values, [0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0]);

    let [same_a, same_b] = [&a, &b].map(|name| name.replace("layers.", "roberta.layers."));
    let whole = [(&a[..], &[3, 2][..]), (&b, &[2, 3]), (&same_a, &[3, 2]), (&same_b, &[2, 3])];
    for (tensors, message) in [
        (&whole[..], "two, by names that mean the same"),
        (&[(&b[..], &[2, 3][..])], "another tensor in an adapter"),
        (&[(&a[..], &[3, 2][..])], "expected [rows, 3], found none"),
        (&[(&a[..], &[2, 2][..]), (&b, &[2, 2])], "expected [3, columns], found [2, 2]"),
        (&[(&a[..], &[3, 2][..]), (&b, &[4, 3])], "[4, 2] in the adapter, for one of 3 parts"),
        (&[], "expected some in an adapter, found none"),
    ] {
        let error = deltas(tensors).err().unwrap_or_else(|| panic!("taken, without: {message}"));
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_delta_is_a_product_of_narrow_matrices() {
    let (left, right) = (vec![1.0, 2.0, 3.0, 4.0], vec![1.0, 0.0, 5.0, 0.0, 1.0, 7.0]);
    let delta = Delta { first: 2, left, right, rank: 2, cols: 3, scaling: 0.5 };
    let mut values = vec![1.0; 6];
    delta.add(3..5, &mut values);
    assert_eq!(values, [2.5, 3.0, 22.5, 1.0, 1.0, 1.0]);
    delta.add(0..2, &mut values);
    assert_eq!(values[0], 2.5);
    assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert!(transposed(&[], 0).is_empty());
}
