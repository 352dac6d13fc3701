//! Which test shows which habit. Of each row of the habits table every field that is not as with any registry has to stand here;
//! what is no field stands here by hand.

use std::collections::BTreeSet;
use std::path::Path;

use transship::registry::{Habits, Kind, Phrase, RemoteSettings, Ways};
use transship::vendors::for_registry;

/// By kind: the file and the name of each test, and what it shows, by `;`. Files are those of `tests/it`, or of `src`.
const TESTS: &str = "\
harbor
    vendors/habits/harbor.rs harbor_blobs_that_were_seen_are_believed_until_a_manifest_is_refused:
        refuses_missing_blobs
    vendors/harbor.rs harbor_makes_a_missing_project_once_for_all_that_need_it:
        must_create
    vendors/harbor.rs harbor_signatures_that_are_listed_as_accessories_travel:
        hides_tags
    vendors/harbor.rs harbor_refusals_are_told_apart:
        401 not found; 403 read only mode; proxy project; 405 METHOD_NOT_ALLOWED; 403 configured upper limit; 412 configured as immutable
    vendors/habits/harbor.rs harbor_policies_that_forbid_a_pull_are_told_and_not_tried_again:
        412 PROJECTPOLICYVIOLATION
    vendors/habits/harbor.rs harbor_immutable_tags_that_are_right_are_not_written:
        412 for a push that changes nothing
    vendors/habits/harbor.rs harbor_mounts_blobs_across_projects:
        mounts across projects
    vendors/habits/harbor.rs harbor_mounts_that_are_refused_with_401_or_202_are_uploads:
        401 for a mount from what may not be pulled
    vendors/habits/harbor.rs harbor_mounts_beyond_the_quota_are_told_as_one:
        the quota counts at a mount
    vendors/habits/harbor.rs harbor_loses_an_upload_that_broke_off_and_the_blob_starts_again:
        an upload is lost with the request that broke off
    vendors/harbor.rs harbor_lists_artifacts_by_pages_and_looks_at_no_tag:
        pages of 100 artifacts, names encoded twice
    vendors/harbor.rs harbor_robots_are_known_by_whatever_prefix:
        prefixes of robots
alibaba_enterprise
    vendors/habits/alibaba.rs alibaba_immutable_tags_are_a_conflict:
        already exists and cannot be overwritten
    src/vendors/table.rs alibabas_token_servers_are_known_by_name_and_region:
        token_hosts
    vendors/habits/alibaba.rs alibaba_has_a_pace_of_15_requests_a_second_for_its_api:
        api_per_second
    vendors/alibaba.rs alibaba_enterprise_as_destination_makes_namespaces_and_repositories:
        must_create
    vendors/alibaba.rs alibaba_tags_that_shift_past_the_reader_are_found_by_their_names:
        hides_tags
    vendors/habits/alibaba.rs alibaba_has_no_catalogue_to_be_asked_for:
        catalogue
    vendors/habits/alibaba.rs alibaba_mounts_blobs_of_another_repository:
        mounts
alibaba_personal
    src/vendors/table.rs alibabas_token_servers_are_known_by_name_and_region:
        token_hosts
    vendors/habits/alibaba.rs alibaba_has_a_pace_of_15_requests_a_second_for_its_api:
        api_per_second
    vendors/alibaba.rs alibaba_personal_lists_makes_and_logs_in_by_its_own_api:
        must_create
    vendors/alibaba.rs alibaba_tags_that_shift_past_the_reader_are_found_by_their_names:
        hides_tags
    vendors/habits/alibaba.rs alibaba_has_no_catalogue_to_be_asked_for:
        catalogue
    vendors/alibaba.rs alibaba_refuses_attestations_in_words_that_name_the_way_out:
        manifests with an empty config are refused
    vendors/habits/alibaba.rs alibaba_mounts_blobs_of_another_repository:
        mounts
ecr
    ecr/pushes.rs a_large_layer_goes_in_pieces_of_20_mib_and_starts_again_where_one_breaks:
        max_piece; upload
    ecr/pushes.rs pieces_go_by_what_was_sent_and_the_rest_goes_with_the_closing_put:
        201 for a piece, none below 5 MiB; trust_upload_range
    ecr/habits.rs ecr_layers_are_believed_for_a_day_and_sent_where_a_manifest_is_refused_for_them:
        refuses_missing_blobs
    ecr/habits.rs ecr_has_a_pace_of_10_requests_a_second_for_its_api:
        api_per_second
    ecr/pushes.rs a_first_copy_makes_the_repository_with_its_settings_and_a_second_run_asks_the_api:
        login_first; must_create
    ecr/api.rs a_hundred_blobs_go_into_a_request_and_several_images_share_one:
        blobs_at_once
    ecr/pushes.rs a_token_is_renewed_once_under_32_uploads_and_where_it_ended_before_its_time:
        expired_login; authorization token has expired
    ecr/pushes.rs an_immutable_tag_is_a_conflict_in_words:
        TAG_INVALID immutable
    ecr/habits.rs ecr_says_in_words_which_permission_is_missing_or_nothing_at_all:
        is not authorized to perform
    ecr/habits.rs ecr_rates_that_are_exceeded_are_waited_for_whatever_the_status:
        rate exceeded
    ecr/habits.rs ecr_names_of_tags_come_by_links_taken_as_they_are:
        absolute links with an opaque mark, no page beyond 1,000
    ecr/habits.rs ecr_mounts_blobs_where_the_account_has_that_switched_on:
        mounts by a setting of the account
    ecr/habits.rs ecr_manifests_without_a_media_type_are_refused_in_words:
        UNSUPPORTED invalid json syntax
    ecr/habits.rs ecr_templates_make_what_is_pushed_to_where_the_user_may_not:
        repositories made by a template
ecr_public
    vendors/ecr_public.rs ecr_public_pieces_are_so_long_that_a_thousand_are_enough_for_the_largest_layer:
        min_piece; max_piece
    vendors/ecr_public.rs ecr_public_large_layers_go_in_pieces_of_10_mib_and_a_rest:
        trust_upload_range; upload
    vendors/habits/ecr_public.rs ecr_public_has_a_pace_of_10_requests_a_second_for_its_api:
        api_per_second
    src/vendors/ecr_public/tests.rs our_own_alias_is_listed_and_made_and_others_are_left_alone:
        must_create
    vendors/habits/ecr_public.rs ecr_public_has_no_catalogue_to_be_asked_for:
        catalogue
    vendors/ecr_public.rs ecr_public_blobs_of_our_own_are_looked_for_by_one_request:
        blobs_at_once
    vendors/habits/ecr_public.rs ecr_public_says_in_words_what_is_the_matter:
        TAG_INVALID immutable; authorization token has expired; is not authorized to perform; rate exceeded; UNSUPPORTED invalid json syntax
azure
    vendors/azure.rs azure_says_what_is_wrong_with_an_application_and_with_a_scope:
        list_action
    vendors/habits/azure.rs azure_mounts_with_a_token_for_both_repositories:
        repeat_scopes; mounts
    vendors/habits/azure.rs azure_locks_for_reading_are_a_missing_right_in_words:
        405 REGISTRY_DISALLOWED_OPERATION
    vendors/azure.rs azure_locks_are_conflicts_and_a_new_repository_may_fail_at_first:
        405 for a locked tag that is written; 500 of a new repository
    vendors/azure.rs azure_repositories_under_a_glob_come_from_the_catalogue:
        links with an empty parameter
    vendors/habits/azure.rs azure_pieces_go_to_the_path_and_query_that_it_names:
        relative places of uploads, ranges without a unit
docker_hub
    src/vendors/table.rs docker_hub_is_reached_under_another_name:
        api_host; credential_key; default_namespace; token_hosts
    vendors/hub.rs docker_hub_images_beyond_the_quota_wait_for_the_next_run:
        metered
    vendors/habits/hub.rs docker_hub_has_a_pace_of_5_requests_a_second_for_its_api:
        api_per_second
    vendors/habits/hub.rs docker_hub_tags_that_its_api_does_not_show_are_looked_at:
        hides_tags
    vendors/habits/hub.rs docker_hub_has_no_catalogue_to_be_asked_for:
        catalogue
    vendors/habits/hub.rs docker_hub_says_pull_rate_limit_of_a_quota_that_is_used_up:
        429 TOOMANYREQUESTS pull rate limit
    vendors/habits/hub.rs docker_hub_says_too_many_requests_in_plain_text_and_is_asked_again:
        429 in plain text
    vendors/habits/hub.rs docker_hub_mounts_blobs_of_another_repository:
        mounts
distribution
    vendors/habits/distribution.rs distribution_blobs_that_were_seen_are_believed_until_a_manifest_is_refused:
        refuses_missing_blobs
zot
    vendors/habits/zot.rs zot_tags_that_its_search_does_not_show_are_looked_at:
        hides_tags
    vendors/zot.rs zot_refuses_a_piece_at_a_wrong_offset_and_the_upload_goes_on_where_it_stands:
        416 at a wrong offset
    vendors/zot.rs zot_ends_an_upload_that_it_could_not_read_and_the_blob_starts_again:
        what it cannot read ends an upload
    vendors/zot.rs zot_has_no_next_page_after_a_deleted_tag_and_the_tags_are_listed_again:
        404 after a tag that is gone
    vendors/zot.rs zot_mounts_a_blob_from_wherever_it_has_it:
        mounts from anywhere
    vendors/zot.rs zot_says_400_of_a_blob_that_a_manifest_lacks_and_gets_it:
        400 for a blob that a manifest lacks
    vendors/habits/zot.rs zot_manifests_of_a_type_that_it_does_not_know_are_refused_in_words:
        415 for a type of manifests that it does not know
tencent_enterprise
    vendors/habits/tencent.rs tencent_has_a_pace_of_10_requests_a_second_for_its_api:
        api_per_second
    vendors/tencent.rs tencent_enterprise_as_destination_makes_namespaces_and_repositories:
        must_create
    vendors/tencent.rs tencent_tags_that_shift_past_the_reader_are_found_by_their_names:
        hides_tags
    vendors/habits/tencent.rs tencent_immutable_tags_are_a_conflict:
        immutable tags as Harbor's
    vendors/habits/tencent.rs tencent_mounts_blobs_of_another_repository:
        mounts
tencent_personal
    vendors/habits/tencent.rs tencent_has_a_pace_of_10_requests_a_second_for_its_api:
        api_per_second
    vendors/tencent.rs tencent_personal_lists_and_makes_by_its_api_and_logs_in_by_its_user:
        must_create
    vendors/habits/tencent.rs tencent_mounts_blobs_of_another_repository:
        mounts
huawei
    vendors/huawei.rs huawei_organisations_are_made_once_for_all_that_need_them:
        must_create
    vendors/huawei.rs huawei_tags_that_shift_past_the_reader_are_found_by_their_names:
        hides_tags
    vendors/habits/huawei.rs huawei_mounts_blobs_of_another_repository:
        mounts
nexus
    vendors/made_by_administrators.rs nexus_repository_that_is_missing_is_told_with_who_makes_it:
        nowhere; create_when_refused
    vendors/habits/nexus.rs nexus_tags_that_may_not_be_redeployed_are_a_conflict:
        400 does not allow updating assets
    vendors/nexus.rs nexus_tags_that_the_index_does_not_have_yet_or_still_has_are_those_of_the_registry:
        hides_tags
    vendors/habits/nexus.rs nexus_nulls_among_its_tags_are_none:
        nulls among tags
    vendors/habits/nexus.rs nexus_mounts_blobs_of_a_hosted_repository:
        mounts
github
    vendors/github.rs github_pieces_of_an_upload_have_4_mib_at_most:
        min_piece; max_piece
    vendors/habits/github.rs github_blobs_that_were_seen_are_believed_until_a_manifest_is_refused:
        refuses_missing_blobs
    vendors/habits/github.rs github_has_no_catalogue_to_be_asked_for:
        catalogue
    vendors/habits/github.rs github_pieces_of_which_it_takes_a_part_go_on_where_it_stands:
        fewer bytes taken than sent
    vendors/habits/github.rs github_layers_of_which_a_piece_is_taken_in_part_arrive_whole:
        fewer bytes taken of a layer
    vendors/habits/github.rs github_mounts_blobs_of_the_same_owner:
        mounts of the same owner
    vendors/habits/github.rs github_mounts_from_another_owner_are_uploads:
        202 for a mount from another owner
google
    vendors/google.rs google_repositories_are_made_on_the_way_and_a_missing_right_is_told:
        must_create
    vendors/google.rs google_pages_for_people_are_no_lists:
        pages for people
    vendors/habits/google.rs google_tags_come_with_their_digests_in_one_answer:
        all tags in one answer
    vendors/habits/google.rs google_blobs_are_read_where_a_302_at_its_own_host_leads:
        302 at its own host
    vendors/habits/google.rs google_mounts_blobs_of_another_image:
        mounts
quay
    vendors/quay.rs quay_says_denied_of_read_only_of_a_quota_and_of_a_namespace:
        405 DENIED read-only; 405 DENIED namespace is disabled; 403 DENIED quota
    vendors/quay.rs quay_uploads_go_on_where_they_stand:
        how much of an upload it has
    vendors/quay.rs quay_blobs_are_read_of_the_storage_that_a_302_names:
        302 to a storage
    vendors/quay.rs quay_pages_of_tags_are_followed_by_their_token:
        pages by a token
    vendors/quay.rs quay_knows_no_referrers_of_a_manifest_that_it_lacks:
        400 for referrers of nothing
gitlab
    vendors/habits/gitlab.rs gitlab_token_server_is_known_by_name:
        token_hosts
    vendors/habits/gitlab.rs gitlab_tags_that_its_api_does_not_show_are_looked_at:
        hides_tags
    vendors/habits/gitlab.rs gitlab_pages_of_a_thousand_tags_are_followed_by_their_link:
        absolute links with a mark
    vendors/habits/gitlab.rs gitlab_mounts_with_the_right_to_pull_from_the_other_project:
        mounts between projects
artifactory
    vendors/made_by_administrators.rs artifactory_key_that_is_missing_is_told_with_who_makes_it:
        create_when_refused
    vendors/habits/artifactory.rs artifactory_tags_that_the_user_may_not_delete_are_a_conflict:
        needs delete permission; MANIFEST_INVALID 403 forbidden
    vendors/artifactory.rs artifactory_repositories_under_a_glob_come_from_its_catalogue_or_from_those_of_the_keys:
        catalogue
    vendors/habits/artifactory.rs artifactory_tags_whose_files_are_not_listed_yet_are_looked_at:
        hides_tags
    vendors/habits/artifactory.rs artifactory_bytes_of_a_blob_come_before_the_closing_put:
        single_put
    vendors/habits/artifactory.rs artifactory_digests_among_its_tags_are_none:
        digests among tags
    vendors/habits/artifactory.rs artifactory_mounts_blobs_of_the_same_key:
        mounts
";

/// The kind, what it does otherwise, and the file and the name of the test.
fn tests() -> Vec<(Kind, &'static str, &'static str, &'static str)> {
    let (mut kind, mut test) = (None, None);
    let mut all = Vec::new();
    for line in TESTS.lines() {
        match (line.len() - line.trim_start().len(), line.trim()) {
            (0, word) => kind = Some(Kind::from_word(word).expect("a kind")),
            (4, line) => test = line.trim_end_matches(':').split_once(' '),
            (_, habits) => {
                let (file, name) = test.expect("a test");
                all.extend(
                    habits
                        .split("; ")
                        .map(|habit| (kind.expect("a kind"), habit, file, name)),
                );
            }
        }
    }
    all
}

/// What a test's file or name has in it.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::AlibabaEnterprise | Kind::AlibabaPersonal => "alibaba",
        Kind::TencentEnterprise | Kind::TencentPersonal => "tencent",
        Kind::DockerHub => "docker_hub",
        kind => kind.as_str(),
    }
}

/// The fields of a kind that are not as with any registry, and the refusals that mean something else there. What the user needs for
/// its listings is no habit: that is in the words of a warning.
fn habits(kind: Kind) -> BTreeSet<String> {
    let mut settings = RemoteSettings {
        kind: Some(kind),
        ..RemoteSettings::default()
    };
    if kind == Kind::DockerHub {
        // Another host than its own is asked itself.
        settings.url.host = "docker.io".to_owned();
    }
    let (here, vendor) = for_registry(&settings);
    let (there, ways) = (Habits::default(), vendor.ways());
    // Each field by its name, so that a new one is not forgotten.
    let Habits {
        api_host,
        credential_key,
        default_namespace,
        token_hosts,
        min_piece,
        max_piece,
        trust_upload_range,
        metered,
        upload,
        refuses_missing_blobs,
        api_per_second,
        login_first,
    } = here;
    let Ways {
        must_create,
        create_when_refused,
        nowhere,
        hides_tags,
        // No habit: which lists are believed together.
        lists_alike: _,
        blobs_at_once,
        right_to_list: _,
        list_action,
        repeat_scopes,
        catalogue,
        single_put,
        phrases,
        expired_login,
    } = ways;
    let plain = Ways::PLAIN;
    let fields = [
        ("api_host", api_host != there.api_host),
        ("credential_key", credential_key != there.credential_key),
        ("default_namespace", default_namespace != there.default_namespace),
        ("token_hosts", token_hosts != there.token_hosts),
        ("min_piece", min_piece != there.min_piece),
        ("max_piece", max_piece != there.max_piece),
        ("trust_upload_range", trust_upload_range != there.trust_upload_range),
        ("metered", metered != there.metered),
        ("upload", upload != there.upload),
        (
            "refuses_missing_blobs",
            refuses_missing_blobs != there.refuses_missing_blobs,
        ),
        ("api_per_second", api_per_second != there.api_per_second),
        ("login_first", login_first != there.login_first),
        ("must_create", *must_create != plain.must_create),
        ("create_when_refused", *create_when_refused != plain.create_when_refused),
        ("nowhere", *nowhere != plain.nowhere),
        ("hides_tags", *hides_tags != plain.hides_tags),
        ("blobs_at_once", *blobs_at_once != plain.blobs_at_once),
        ("list_action", *list_action != plain.list_action),
        ("repeat_scopes", *repeat_scopes != plain.repeat_scopes),
        ("catalogue", *catalogue != plain.catalogue),
        ("single_put", *single_put != plain.single_put),
        ("expired_login", *expired_login != plain.expired_login),
    ];
    let differ = fields.iter().filter(|(_, differs)| *differs);
    let mut all: BTreeSet<String> = differ.map(|(name, _)| (*name).to_owned()).collect();
    all.extend(phrases.iter().map(said));
    all
}

/// A refusal by what tells it: `412 PRECONDITION immutable`.
fn said(phrase: &Phrase) -> String {
    let status = match phrase.status {
        0 => String::new(),
        status => status.to_string(),
    };
    let parts = [status.as_str(), phrase.code, phrase.says];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

#[test]
fn each_habit_has_a_test_that_bears_the_vendors_name() {
    let (root, tests) = (Path::new(env!("CARGO_MANIFEST_DIR")), tests());
    for kind in Kind::ALL {
        let shown = tests.iter().filter(|(of, ..)| of == kind);
        let shown: BTreeSet<&str> = shown.map(|(_, habit, ..)| *habit).collect();
        let missing: Vec<String> = habits(*kind)
            .into_iter()
            .filter(|habit| !shown.contains(habit.as_str()))
            .collect();
        assert!(missing.is_empty(), "{kind:?} has no test for {missing:?}");
    }
    for (kind, habit, file, name) in tests {
        let path = match file.starts_with("src/") {
            true => root.join(file),
            false => root.join("tests/it").join(file),
        };
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let before = text.split_once(&format!("fn {name}()")).map(|(before, _)| before);
        let is_test = before.is_some_and(|before| {
            let before = before.trim_end();
            before.trim_end_matches("async").trim_end().ends_with("test]")
        });
        assert!(is_test, "{file} has no test {name}");
        let bears = format!("{file}:{name}").contains(word(kind));
        assert!(bears, "{habit:?} of {kind:?}: {file}, {name}");
    }
}
